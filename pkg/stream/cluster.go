package stream

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream in a cluster has a leader, which takes what is published and answers, and
// followers. A publish is acknowledged once most of the replicas have it on disk.

// Behind says which replicas a stream lacks, and which do not have everything: nothing for
// a stream of one replica that is there.
func Behind(info *jetstream.StreamInfo) (problems []string) {
	if info.Cluster == nil || info.Config.Replicas <= 1 {
		return nil
	}
	if info.Cluster.Leader == "" {
		problems = append(problems, "no leader")
	}
	for _, r := range info.Cluster.Replicas {
		switch {
		case r.Offline:
			problems = append(problems, r.Name+" is offline")
		case !r.Current:
			problems = append(problems, fmt.Sprintf("%s is %d operations behind", r.Name, r.Lag))
		}
	}
	if missing := info.Config.Replicas - 1 - len(info.Cluster.Replicas); missing > 0 {
		problems = append(problems, fmt.Sprintf("%d replicas are missing", missing))
	}
	return problems
}
