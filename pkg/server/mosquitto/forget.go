package mosquitto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// The saved database of Mosquitto 2 (its src/persist.h, versions 5 and 6): a head, then
// chunks, each with its kind, its length and its content. Numbers are big endian, but a
// message's expiry is in the byte order of the machine.
const (
	databaseMagic = "\x00\xb5\x00mosquitto db"
	databaseHead  = len(databaseMagic) + 4 + 4 // a checksum that is not used, and the version
	chunkHead     = 4 + 4
	messageChunk  = 2
	expiryAt      = chunkHead + 8  // in seconds since 1970; 0: none
	lengthsAt     = chunkHead + 22 // of the publisher's client id and user name, and of the topic
	messageHead   = chunkHead + 32 // the numbers of a message; those names follow
	commandPrefix = "cmnd/"
	longExpired   = 1 // an expiry with which Mosquitto drops a message when it reads the database
)

// ForgetCommands has a broker that does not run yet drop the commands in its data folder.
// Mosquitto 2.0.11 to 2.1.2 restores a message in the very second in which it expires as
// one that never does: a restart at that moment would open a door hours later, when the
// controller comes back. And after a crash Mosquitto would send a command again that the
// controller has carried out.
//
// Other messages stay, and a folder without a database is no error. What is damaged is
// left for Mosquitto to judge.
func ForgetCommands(data string) (err error) {
	root, err := os.OpenRoot(data)
	if err != nil {
		return fmt.Errorf("forgetting saved commands: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	file, err := root.OpenFile(savedFile, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer func() { err = errors.Join(err, file.Close()) }()
		err = forgetCommands(file)
	}
	if err != nil {
		return fmt.Errorf("forgetting saved commands: %w", err)
	}
	return nil
}

// database is a file that holds one.
type database interface {
	io.ReaderAt
	io.WriterAt
}

func forgetCommands(d database) error {
	head := make([]byte, databaseHead)
	if !readAt(d, head, 0) || string(head[:len(databaseMagic)]) != databaseMagic {
		return nil
	}
	if version := binary.BigEndian.Uint32(head[databaseHead-4:]); version != 5 && version != 6 {
		return nil // damage: Mosquitto 2 writes no other
	}
	expired := binary.NativeEndian.AppendUint64(nil, longExpired)
	chunk := make([]byte, messageHead)
	for at := int64(databaseHead); readAt(d, chunk[:chunkHead], at); at += chunkHead + int64(binary.BigEndian.Uint32(chunk[4:])) {
		if binary.BigEndian.Uint32(chunk) != messageChunk || !readAt(d, chunk, at) || !isCommand(d, chunk, at) {
			continue
		}
		if _, err := d.WriteAt(expired, at+expiryAt); err != nil {
			return err
		}
	}
	return nil
}

// isCommand reports whether the message at an offset expires, and is a command.
func isCommand(d database, chunk []byte, at int64) bool {
	if binary.NativeEndian.Uint64(chunk[expiryAt:]) == 0 {
		return false
	}
	names := int64(binary.BigEndian.Uint16(chunk[lengthsAt:])) + int64(binary.BigEndian.Uint16(chunk[lengthsAt+2:]))
	topic := make([]byte, len(commandPrefix))
	return int64(binary.BigEndian.Uint16(chunk[lengthsAt+4:])) >= int64(len(topic)) &&
		readAt(d, topic, at+messageHead+names) && string(topic) == commandPrefix
}

// readAt reports whether all of p could be read.
func readAt(d database, p []byte, at int64) bool {
	_, err := d.ReadAt(p, at)
	return err == nil
}
