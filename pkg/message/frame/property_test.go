package frame_test

import (
	"bytes"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

// fields draws any valid field of an encoding, at an offset of 0..8.
func fields(t *rapid.T, e frame.Encoding) frame.Field {
	f := frame.Field{Encoding: e, Offset: rapid.IntRange(0, 8).Draw(t, "offset"), Length: e.Size()}
	if f.Length == 0 {
		longest := 8
		if isText(e) {
			longest = frame.MaxLength
		}
		f.Length = rapid.IntRange(1, longest).Filter(func(n int) bool {
			return frame.Field{Encoding: e, Length: n}.Validate() == nil
		}).Draw(t, "length")
	}
	if !isText(e) {
		f.Decimals = rapid.IntRange(-frame.MaxDecimals, frame.MaxDecimals).Draw(t, "decimals")
	}
	return f
}

func isText(e frame.Encoding) bool { return strings.HasPrefix(e.String(), "ASCII") }

// frames draws bytes that a field of the encoding decodes in most cases.
func frames(t *rapid.T, f frame.Field) []byte {
	b := rapid.SliceOfN(rapid.Byte(), f.Offset+f.Length, f.Offset+f.Length+4).Draw(t, "frame")
	field := b[f.Offset : f.Offset+f.Length]
	switch name := f.Encoding.String(); {
	case isText(f.Encoding):
		copy(field, rapid.SliceOfN(rapid.ByteRange(' ', '~'), f.Length, f.Length).Draw(t, "text"))
	case strings.HasPrefix(name, "BCD"):
		for i := range field {
			field[i] = field[i]%10 | field[i]/26<<4
		}
	}
	return b
}

// TestDecodeInvertsEncode: for every encoding, a decoded value is encoded to bytes that decode
// to the same value.
func TestDecodeInvertsEncode(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			e := encoding(t, name)
			rapid.Check(t, func(t *rapid.T) {
				f := fields(t, e)
				original := frames(t, f)
				want, err := f.Decode(original)
				if err != nil {
					t.Skip("bytes that are no value")
				}
				fresh := make([]byte, len(original))
				require.NoError(t, f.Encode(fresh, want))
				got, err := f.Decode(fresh)
				require.NoError(t, err)
				require.Equal(t, want, got)
				requireUntouched(t, f, fresh)
			})
		})
	}
}

// requireUntouched requires that only the field's own bytes of a zero frame have changed.
func requireUntouched(t require.TestingT, f frame.Field, b []byte) {
	require.True(t, isZero(b[:f.Offset]) && isZero(b[f.Offset+f.Length:]))
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// maxBijective is the limit below which no two scaled integers have the same float64.
const maxBijective = 1<<52 - 1

// TestEncodeInvertsDecode: encoding gives the same bits if no two raw values have the same
// float64: below 2^52, and for unscaled floats and text.
func TestEncodeInvertsDecode(t *testing.T) {
	for _, name := range names() {
		if strings.HasPrefix(name, "B") && !strings.HasPrefix(name, "BCD") {
			continue // Bool and BitN do not look at all bits
		}
		t.Run(name, func(t *testing.T) {
			e := encoding(t, name)
			isFloat := strings.HasPrefix(name, "Float")
			rapid.Check(t, func(t *rapid.T) {
				f := fields(t, e)
				if isFloat {
					f.Decimals = 0
				}
				original := frames(t, f)
				clear(original[:f.Offset])
				clear(original[f.Offset+f.Length:])
				if strings.Contains(name, "nt64") || strings.HasPrefix(name, "BCD") {
					plain := frame.Field{Encoding: e, Offset: f.Offset, Length: f.Length}
					n := int64(min(maxBijective, math.Pow(10, float64(2*f.Length))-1))
					raw := rapid.Int64Range(0, n).Draw(t, "raw")
					require.NoError(t, plain.Encode(original, frame.FieldValue{Number: float64(raw)}))
				}
				v, err := f.Decode(original)
				if err != nil {
					t.Skip("bytes that are no value")
				}
				fresh := make([]byte, len(original))
				require.NoError(t, f.Encode(fresh, v))
				require.Equal(t, original, fresh)
			})
		})
	}
}

// TestScalingIsCorrectlyRounded compares with exact rational arithmetic.
func TestScalingIsCorrectlyRounded(t *testing.T) {
	for _, name := range []string{"Int8", "Int16", "Uint16", "Int24", "Uint24", "Int32", "Uint32", "Int64", "Uint64", "BCD", "Float32", "Float64"} {
		t.Run(name, func(t *testing.T) {
			e := encoding(t, name)
			rapid.Check(t, func(t *rapid.T) {
				f := fields(t, e)
				b := frames(t, f)
				raw, ok := exact(name, b[f.Offset:f.Offset+f.Length])
				if !ok {
					t.Skip("NaN or an infinity")
				}
				want, _ := divide(raw, f.Decimals).Float64()
				got, err := f.Decode(b)
				if math.IsInf(want, 0) {
					requireReason(t, err, frame.ReasonNotANumber)
					return
				}
				require.NoError(t, err)
				require.Equal(t, want, got.Number) //nolint:testifylint // equal to the last bit
			})
		})
	}
}

// exact reads big-endian bytes in another way than the package.
func exact(name string, b []byte) (*big.Rat, bool) {
	n := new(big.Int).SetBytes(b)
	switch {
	case name == "Float32":
		return rational(float64(math.Float32frombits(uint32(n.Uint64()))))
	case name == "Float64":
		return rational(math.Float64frombits(n.Uint64()))
	case name == "BCD":
		n.SetString(n.Text(16), 10)
	case strings.HasPrefix(name, "Int") && b[0]&0x80 != 0:
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return new(big.Rat).SetInt(n), true
}

func rational(x float64) (*big.Rat, bool) {
	r := new(big.Rat).SetFloat64(x)
	return r, r != nil
}

func divide(r *big.Rat, decimals int) *big.Rat {
	power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(decimals, -decimals))), nil))
	if decimals > 0 {
		return new(big.Rat).Quo(r, power)
	}
	return new(big.Rat).Mul(r, power)
}

// TestMultiplyingIsNotExact is the control of the property above: many readings with two
// decimals are wrong as 0.01 × raw.
func TestMultiplyingIsNotExact(t *testing.T) {
	wrong := 0
	for raw := range int64(10000) {
		want, _ := divide(big.NewRat(raw, 1), 2).Float64()
		if hundredth := 0.01; float64(raw)*hundredth != want {
			wrong++
		}
	}
	require.Greater(t, wrong, 1000)
}

// TestEncodeIsNearest: any number in range is encoded to one of its neighbours.
func TestEncodeIsNearest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := frame.Field{Encoding: encoding(t, "Int32"), Length: 4, Decimals: rapid.IntRange(0, 6).Draw(t, "decimals")}
		step := math.Pow10(-f.Decimals)
		v := rapid.Float64Range(-2e9*step, 2e9*step).Draw(t, "value")
		b := make([]byte, 4)
		require.NoError(t, f.Encode(b, frame.FieldValue{Number: v}))
		got, err := f.Decode(b)
		require.NoError(t, err)
		require.InDelta(t, v, got.Number, step*0.5000001)
	})
}
