package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

func parseMACs(texts []string) ([]topic.MAC, error) {
	macs := make([]topic.MAC, len(texts))
	for i, text := range texts {
		mac, err := parseMAC(text)
		if err == nil && mac == "" {
			err = errors.New("a MAC address is empty")
		}
		if err != nil {
			return nil, err
		}
		macs[i] = mac
	}
	return macs, nil
}

// parseMAC reads a MAC address; the empty text stands for none.
func parseMAC(text string) (topic.MAC, error) {
	if text == "" {
		return "", nil
	}
	mac, err := topic.ParseMAC(text)
	if err != nil {
		return "", fmt.Errorf("%q is not a MAC address: 12 hex digits, without separators or with - or : between bytes", text)
	}
	return mac, nil
}

// printAs prints what a command found, as JSON or as text for people.
func printAs(asJSON bool, found io.WriterTo) error {
	if asJSON {
		return plain.PrintJSON(found)
	}
	_, err := found.WriteTo(os.Stdout)
	return err
}
