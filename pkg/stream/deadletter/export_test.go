package deadletter

import "github.com/nats-io/nats.go"

// Message is the letter as the first of its subject is stored.
func (l *Letter) Message() *nats.Msg { return l.message(1) }
