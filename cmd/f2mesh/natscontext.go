package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/natsserver"
)

// writeContext makes a context for the `nats` CLI. The file is in the state
// directory; a link where the CLI looks for contexts lets it be found by name.
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
	if m.cfg.ContextDir == "" {
		return nil
	}
	if err := os.MkdirAll(m.cfg.ContextDir, 0o700); err != nil {
		return fmt.Errorf("linking the nats context: %w", err)
	}
	name := m.contextName()
	link := filepath.Join(m.cfg.ContextDir, name+".json")
	if target, err := os.Readlink(link); err == nil && target == file {
		return nil
	}
	_ = os.Remove(link) // ours by its name, or dangling
	if err := os.Symlink(file, link); err != nil {
		return fmt.Errorf("linking the nats context: %w", err)
	}
	return nil
}

func (m *mesh) contextFile() string { return m.state.path("nats", "context.json") }

// contextName is f2mesh, or f2mesh-<hash> while another mesh has that name.
func (m *mesh) contextName() string {
	const name = "f2mesh"
	link := filepath.Join(m.cfg.ContextDir, name+".json")
	target, err := os.Readlink(link)
	if err != nil {
		if _, err := os.Lstat(link); err != nil {
			return name
		}
	} else if target == m.contextFile() || !exists(target) {
		return name
	}
	sum := sha256.Sum256([]byte(m.state.dir))
	return name + "-" + hex.EncodeToString(sum[:4])
}

// removeContext takes the link away again.
func (m *mesh) removeContext() {
	if m.cfg.ContextDir == "" {
		return
	}
	link := filepath.Join(m.cfg.ContextDir, m.contextName()+".json")
	if target, err := os.Readlink(link); err == nil && target == m.contextFile() {
		_ = os.Remove(link)
	}
}

// contextDir is where the `nats` CLI keeps contexts.
func contextDir() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "nats", "context")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".config", "nats", "context")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
