package process

import (
	"bufio"
	"errors"
	"io"
)

// longest is how much of a line is kept; a longer one is cut, not split.
const longest = 4096

// scan calls each for every line of r, without its end and cut at longest,
// until r ends.
func scan(r io.Reader, each func(string)) {
	reader := bufio.NewReaderSize(r, longest)
	for {
		part, err := reader.ReadSlice('\n')
		if line := trimEnd(part); len(line) > 0 {
			each(string(line))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = reader.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func trimEnd(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line
}
