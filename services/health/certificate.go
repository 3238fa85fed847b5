package health

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
)

// certificates reads the certificates of files that are named.
func certificates(files ...string) ([]Certificate, error) {
	all := []Certificate{}
	seen := [][]byte{}
	for _, file := range files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file) //nolint:gosec // the operator's choice
		if err != nil {
			return nil, fmt.Errorf("reading certificates: %w", err)
		}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("reading certificates of %s: %w", file, err)
			}
			if slices.ContainsFunc(seen, func(raw []byte) bool { return bytes.Equal(raw, c.Raw) }) {
				continue // a CA that is in the chain, too
			}
			seen = append(seen, c.Raw)
			all = append(all, Certificate{fmt.Sprintf("%s, serial number %x", c.Subject.CommonName, c.SerialNumber), c.NotAfter.UTC()})
		}
	}
	return all, nil
}
