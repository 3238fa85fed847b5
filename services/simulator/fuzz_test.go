package simulator

import "testing"

func FuzzParseCommand(f *testing.F) {
	f.Add("cmnd/f2-e4fd45f654be/access-control-mode/J3/strike-1", []byte(`{"power-flag":1,"period":5}`))
	f.Add("cmnd/f2-e4fd45f654be/alarm-mode/J1/siren-1", []byte(`{"value":1}`))
	f.Add("cmnd/f2-e4fd45f654be/access-control-mode/J2/reader-1/success", []byte(`{}`))
	f.Fuzz(func(_ *testing.T, name string, body []byte) {
		_, _ = parseCommand(name, body)
	})
}
