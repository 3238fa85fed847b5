package watch

import (
	"net"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// kind is what a line of Mosquitto's log tells.
type kind int

const (
	nothing    kind = iota
	opened          // somebody opened a connection
	connected       // a client is in
	taken           // a connection was ended for another of the same client
	tlsFailed       // what OpenSSL says; the client it is about comes with the next line
	turnedAway      // somebody who was not let in
	denied          // a publish that the ACL does not allow
	ended           // a connection, whether or not its client was in
)

// observation is a line of the log. What it quotes is from whoever connects, and
// not to be trusted.
type observation struct {
	kind    kind
	client  topic.MAC // "" if it is no device
	address string    // with port
	text    string    // the reason why somebody was turned away or a connection ended, or the topic that was denied
	why     string    // what OpenSSL says of it
}

// parse reads a line of Mosquitto 2.0's or 2.1's log, with or without the time in
// front. The log is the only place where it tells them.
func parse(line string) observation {
	if seconds, rest, ok := strings.Cut(line, ": "); ok && strings.Trim(seconds, "0123456789") == "" {
		line = rest
	}
	switch {
	case strings.HasPrefix(line, "New client connected from "):
		return parseConnected(line)
	case strings.HasPrefix(line, "New connection from "):
		address, _, _ := strings.Cut(strings.TrimPrefix(line, "New connection from "), " ")
		return observation{kind: opened, address: address}
	case strings.HasPrefix(line, "Client connection from "):
		// Seen instead of the other two where the handshake fails at once.
		address, why, _ := strings.Cut(strings.TrimPrefix(line, "Client connection from "), " ")
		return observation{kind: turnedAway, address: address, text: reasonTLS, why: strings.TrimSuffix(lastPart(why), ".")}
	case strings.HasPrefix(line, "Client <unknown> "):
		return parseUnknown(strings.TrimPrefix(line, "Client <unknown> "))
	case strings.HasPrefix(line, "Client "):
		return parseClient(strings.TrimPrefix(line, "Client "))
	case strings.HasPrefix(line, "Bad socket read/write on client "):
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "Bad socket read/write on client "), ": ")
		return ofDevice(ended, id)
	case strings.HasPrefix(line, "OpenSSL Error"):
		return observation{kind: tlsFailed, why: lastPart(line)}
	case strings.HasPrefix(line, "Denied PUBLISH from "):
		return parseDenied(strings.TrimPrefix(line, "Denied PUBLISH from "))
	}
	return observation{}
}

// parseConnected reads "New client connected from 192.0.2.1:40824 as ID (p2, c1, k60, u'USER').".
// Only a device has its MAC for both id and user: the name that it connects under is
// its certificate's.
func parseConnected(line string) observation {
	address, rest, _ := strings.Cut(strings.TrimPrefix(line, "New client connected from "), " as ")
	id, options, _ := strings.Cut(rest, " (")
	o := ofDevice(connected, id)
	o.kind, o.address = connected, address
	if !strings.HasSuffix(options, ", u'"+id+"').") {
		o.client = ""
		o.text = id // somebody else under this client id
	}
	return o
}

// parseClient reads "ID disconnected…", "ID closed its connection." and the like of
// 2.0, and "ID [192.0.2.1:40824] disconnected: reason." of 2.1.
func parseClient(rest string) observation {
	const end = "] disconnected"
	if i := strings.LastIndex(rest, end); i >= 0 {
		id, address, found := cutLast(rest[:i], " [")
		if !found {
			return observation{}
		}
		o := ofDevice(ended, id)
		o.kind, o.address = ended, address
		o.text = strings.TrimSuffix(strings.TrimPrefix(rest[i+len(end):], ": "), ".")
		if o.text == "session taken over" {
			return ofDevice(taken, id)
		}
		return o
	}
	id, what, _ := strings.Cut(rest, " ")
	switch {
	case strings.HasPrefix(what, "already connected"):
		return ofDevice(taken, id)
	case strings.Contains(what, "disconnect"), strings.HasPrefix(what, "closed its connection"):
		return ofDevice(ended, id)
	}
	return observation{}
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

func parseUnknown(what string) observation {
	switch {
	case strings.HasPrefix(what, "disconnected, not authorised"):
		return observation{kind: turnedAway, text: reasonPassword}
	case strings.HasPrefix(what, "disconnected: Protocol error"), strings.HasPrefix(what, "disconnected due to"):
		return observation{kind: turnedAway, text: reasonProtocol}
	}
	return observation{}
}

// parseDenied reads "ID (d0, q1, r0, m1, 'TOPIC', ... (95 bytes))", a line of level
// debug.
func parseDenied(rest string) observation {
	id, what, _ := strings.Cut(rest, " (")
	o := ofDevice(denied, id)
	if o.kind == nothing {
		return o
	}
	_, what, _ = strings.Cut(what, "'")
	if end := strings.LastIndex(what, "', ... ("); end >= 0 {
		o.text = what[:end]
	}
	return o
}

// lastPart is the text of OpenSSL's error:0A0000C7:SSL routines::text.
func lastPart(text string) string { return text[strings.LastIndex(text, ":")+1:] }

func ofDevice(k kind, id string) observation {
	mac, err := topic.ParseMAC(id)
	if err != nil || id != mac.Dashed() {
		return observation{}
	}
	return observation{kind: k, client: mac}
}

// hostOf is an address without its port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	if i := strings.LastIndex(address, ":"); i > 0 { // Mosquitto writes IPv6 without brackets
		return address[:i]
	}
	return address
}
