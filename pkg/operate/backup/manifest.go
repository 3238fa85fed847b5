package backup

import (
	"time"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Format is the version of the archive's layout.
const Format = 2

// Manifest says what is in an archive.
type Manifest struct {
	Format     int               `json:"format"`
	Version    string            `json:"version"`              // of the program that wrote it
	Created    time.Time         `json:"created"`              // the moment as of which everything is there
	Arguments  []string          `json:"arguments,omitempty"`  // with which the mesh was started and is to be started again
	Containers bool              `json:"containers,omitempty"` // of a mesh in containers
	Streams    []stream.Snapshot `json:"streams"`
	Databases  []postgres.Census `json:"databases"`
	Parts      []ArchiveFile     `json:"parts"` // all but the manifest and its signature
}

// ArchiveFile is one file in the archive.
type ArchiveFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}
