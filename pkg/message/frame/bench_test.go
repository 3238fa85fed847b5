package frame_test

import (
	"testing"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

const issueFrame = "01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"

func BenchmarkParseHex(b *testing.B) {
	src := []byte(issueFrame)
	dst := make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = frame.ParseHex(dst, src)
	}
}

func BenchmarkDecode(b *testing.B) {
	src := mustHex(b, issueFrame)
	for _, bc := range []struct {
		name string
		frame.Field
	}{
		{"Int16", frame.Field{Offset: 3, Length: 2, Decimals: 2}},
		{"Uint32CDAB", frame.Field{Offset: 3, Length: 4, Decimals: 3}},
		{"Float64", frame.Field{Offset: 3, Length: 8}},
		{"Uint64", frame.Field{Offset: 3, Length: 8, Decimals: 3}}, // takes the slow, exact way
	} {
		b.Run(bc.name, func(b *testing.B) {
			f := bc.Field
			f.Encoding = encoding(b, bc.name)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = f.Decode(src)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	f := frame.Field{Encoding: encoding(b, "Int16"), Offset: 3, Length: 2, Decimals: 2}
	dst := mustHex(b, issueFrame)
	for _, bc := range []struct {
		name  string
		value float64
	}{{"exact", 25.52}, {"rounded", 25.5249}} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = f.Encode(dst, frame.FieldValue{Number: bc.value})
			}
		})
	}
}

func BenchmarkParseEncoding(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = frame.ParseEncoding("uint32_CDAB")
	}
}

func BenchmarkReadResponse(b *testing.B) {
	for _, bc := range []struct{ name, hex string }{
		{"right CRC", "01 04 04 01 31 02 22 2A CE"},
		{"wrong CRC", issueFrame},
		{"no response", "AA 55 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			src := mustHex(b, bc.hex)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = frame.ReadResponse(src, frame.Layout{First: 3, End: 7})
			}
		})
	}
}
