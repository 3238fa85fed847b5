package keeper

import (
	"errors"
	"time"
)

// Config of the keeper. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	RawHistory     time.Duration `help:"How long RAW keeps messages that the decoder has acknowledged, space permitting." env:"RAW_HISTORY" default:"168h" name:"raw-history"`
	DecodedHistory time.Duration `help:"How long DECODED keeps messages that the writer has acknowledged, space permitting." env:"DECODED_HISTORY" default:"72h" name:"decoded-history"`
	Share          float64       `help:"Fraction of a stream's size limit that history may use. The rest is for pending messages." env:"HISTORY_SHARE" default:"0.8" name:"history-share"`
	FillingWithin  time.Duration `help:"Raise an alarm if pending messages will fill a stream within this time." env:"STREAM_FILLING_WITHIN" default:"24h" name:"filling-within"`
}

// Validate returns an error for the first invalid setting.
func (c *Config) Validate() error {
	switch {
	case c.RawHistory <= 0 || c.DecodedHistory <= 0 || c.FillingWithin <= 0:
		return errors.New("raw-history, decoded-history and filling-within must be positive")
	case c.Share <= 0 || c.Share > 0.9:
		return errors.New("history-share must be above 0 and at most 0.9")
	}
	return nil
}
