package frame_test

import (
	"encoding/csv"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

// TestGolden decodes whole frames. Each folder under testdata/frames has frame.hex, fields.csv
// with the metadata, and expected.csv with a line for each field: its label and a number,
// "text …" or the reason of an error. The error may be that of the whole frame.
func TestGolden(t *testing.T) {
	folders, err := filepath.Glob("testdata/frames/*")
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join(folder, "frame.hex"))
			require.NoError(t, err)
			b := mustHex(t, string(src[:len(src)-1]))
			fields := readCSV(t, filepath.Join(folder, "fields.csv"))[1:]
			expected := readCSV(t, filepath.Join(folder, "expected.csv"))
			require.Len(t, expected, len(fields))
			var layout frame.Layout
			for _, line := range fields {
				layout.Add(field(t, line))
			}
			response, refusal := frame.ReadResponse(b, layout)
			for i, line := range fields {
				require.Equal(t, line[0], expected[i][0])
				require.Equal(t, normal(expected[i][1]), decode(t, line, b, response, refusal), line[0])
			}
		})
	}
}

// normal writes a number as its float64 is written, so that expected.csv can have the exact
// decimal.
func normal(s string) string {
	if x, err := strconv.ParseFloat(s, 64); err == nil {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return s
}

func field(t *testing.T, line []string) frame.Field {
	t.Helper()
	return frame.Field{Encoding: encoding(t, line[1]), Offset: atoi(t, line[2]), Length: atoi(t, line[3]), Decimals: atoi(t, line[4])}
}

// decode returns the value of a field as expected.csv has it.
func decode(t *testing.T, line []string, b []byte, response frame.Response, err error) string {
	t.Helper()
	f := field(t, line)
	if err == nil {
		err = response.Check(f)
	}
	var v frame.FieldValue
	if err == nil {
		v, err = f.Decode(b)
	}
	var refused *frame.Error
	switch {
	case errors.As(err, &refused):
		return refused.Reason
	case v.IsText:
		return "text " + v.Text
	}
	return strconv.FormatFloat(v.Number, 'f', -1, 64)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func readCSV(t *testing.T, name string) [][]string {
	t.Helper()
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	lines, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)
	return lines
}
