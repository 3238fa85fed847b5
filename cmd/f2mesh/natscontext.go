package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/natsserver"
)

// writeContext makes a context for the `nats` CLI.
func (m *mesh) writeContext(url string) error {
	var content map[string]any
	if err := json.Unmarshal(natsfiles.Context, &content); err != nil {
		return fmt.Errorf("reading the context's template: %w", err)
	}
	content["description"] = "f2mesh on " + m.state.dir
	content["url"] = url
	content["user"] = natsserver.Operator
	content["password"] = m.passwords[natsserver.Operator]
	content["ca"] = m.authority.CAFile()
	content["inbox_prefix"] = natsserver.InboxPrefix(natsserver.Operator)
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	file := m.contextFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("writing the nats context: %w", err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("writing the nats context: %w", err)
	}
	return nil
}

// contextFile is what NATS_CONTEXT names: the CLI takes an absolute path.
func (m *mesh) contextFile() string { return m.state.path("nats", "context.json") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
