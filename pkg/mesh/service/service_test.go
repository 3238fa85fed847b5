package service

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSemanticVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3":                  "1.2.3",
		"v1.2.3-4-g0123abc-dirty": "1.2.3-4-g0123abc-dirty",
		"0.0.0-dev":               "0.0.0-dev",
		"0123abc":                 "0.0.0+0123abc",
		"0123456-dirty":           "0.0.0+0123456-dirty",
		"unknown":                 "0.0.0+unknown",
		"v0.1-x":                  "0.0.0+v0.1-x",
		"door/1.2":                "0.0.0+door-1.2",
	} {
		assert.Equal(t, want, semanticVersion(version), version)
	}
}
