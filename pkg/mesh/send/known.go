package send

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// controllerNames returns the names of the controllers in the metadata.
func controllerNames(ctx context.Context, m *mesh.Mesh) (map[topic.MAC]string, error) {
	db, err := mesh.ConnectPostgres(ctx, m.Description.DSN("", mesh.DatabaseMetadata), m.Secrets, mesh.SecretReader)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	table := pgx.Identifier{mesh.MetadataSchema, "Device"}.Sanitize()
	rows, err := db.Query(ctx, `SELECT "MacAddress", "DeviceName" FROM `+table+` WHERE "MacAddress" IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("reading the names of controllers: %w", err)
	}
	names := map[topic.MAC]string{}
	var address, name string
	_, err = pgx.ForEachRow(rows, []any{&address, &name}, func() error {
		if mac, err := topic.ParseMAC(address); err == nil {
			names[mac] = name
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the names of controllers: %w", err)
	}
	return names, nil
}

// components returns the components that LATEST has a state of, sorted.
func components(ctx context.Context, js jetstream.JetStream) (all []topic.Topic, err error) {
	found, err := js.Stream(ctx, stream.Latest)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", stream.Latest, err)
	}
	const prefix = "$KV.LATEST."
	info, err := found.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", stream.Latest, err)
	}
	var subjects []string
	for subject := range info.State.Subjects {
		subjects = append(subjects, subject)
	}
	slices.Sort(subjects)
	for _, subject := range subjects {
		if t, err := topic.ParseSubject("f2.command." + strings.TrimPrefix(subject, prefix)); err == nil {
			all = append(all, t)
		}
	}
	return all, nil
}
