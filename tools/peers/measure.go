package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/f2mesh/f2mesh/pkg/operate/progress"
)

const (
	// warmUp is how many messages come before the measured ones: the consumer reads metadata
	// and makes its table.
	warmUp = 1000
	// patience is how long no further row comes before a run counts as incomplete.
	patience = time.Minute
	// maxPause is how long a consumer is paused at most: after 45 s, which is 1.5 times the keep-alive, the
	// broker ends its connection.
	maxPause = 40 * time.Second
)

// measure measures one run of a system.
func measure(ctx context.Context, s system, mode string, messages int) (r result, err error) {
	dir, err := os.MkdirTemp("", "f2mesh-peers-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // as root the servers run as other users
		return r, err
	}
	servers, err := startServers(ctx, dir+"/state", s.parts, controllers)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, servers.remove()) }()
	c, err := s.start(ctx, servers)
	if err != nil {
		return r, err
	}
	defer c.close()
	if err := c.warm(ctx, s, servers); err != nil {
		return r, err
	}

	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return r, err
	}
	used := processes{up: servers.Pid(), own: c.Pid()}
	load, err := c.send(ctx, servers, mode, messages)
	if err != nil {
		return r, err
	}
	if err := used.resetPeak(); err != nil {
		return r, err
	}
	before, err := used.measure(fs)
	if err != nil {
		return r, err
	}
	begin := time.Now()
	if err := c.Signal(syscall.SIGCONT); err != nil {
		return r, err
	}
	bar := progress.Count("rows")
	_, end, err := c.await(ctx, (warmUp+int64(messages))*s.rows, bar)
	bar.Finish()
	if err != nil {
		return r, err
	}
	after, err := used.measure(fs)
	if err != nil {
		return r, err
	}
	r = result{System: s.name, Mode: mode, Messages: messages, Seconds: end.Sub(begin).Seconds()}
	r.figures = figuresOf(before, after, r.Seconds, float64(messages))
	var sent float64 // the load generator's CPU time during the measurement
	if mode == live {
		if err := load.Wait(); err != nil {
			return r, fmt.Errorf("sending messages: %w", err)
		}
		sent = (load.ProcessState.UserTime() + load.ProcessState.SystemTime()).Seconds()
	}
	r.Load = sent / float64(messages) * 1e6
	r.Others = (after.machine-before.machine-sent)/r.Seconds - r.All*r.Rate/1e6
	rows, err := servers.count(ctx, s.table)
	r.Written = float64(rows)/float64(s.rows) - warmUp
	return r, err
}

// warm sends the first messages.
func (c *consumer) warm(ctx context.Context, s system, servers *servers) error {
	load, err := startLoad(ctx, servers, warmUp, 0)
	if err != nil {
		return err
	}
	rows, _, err := c.await(ctx, warmUp*s.rows, nil)
	if err == nil && rows != warmUp*s.rows {
		err = fmt.Errorf("%d rows came of the first messages, not %d", rows, warmUp*s.rows)
	}
	return errors.Join(err, load.Wait())
}

// send returns when the measurement begins: live with the first of the messages; in a drain when
// the broker has them all and the consumer, which is paused, may continue.
func (c *consumer) send(ctx context.Context, servers *servers, mode string, messages int) (*exec.Cmd, error) {
	if mode == live {
		return startLoad(ctx, servers, messages, 0)
	}
	began := time.Now()
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	load, err := startLoad(ctx, servers, messages, 0)
	if err == nil {
		err = load.Wait()
	}
	if paused := time.Since(began); err == nil && paused > maxPause {
		err = fmt.Errorf("the broker took %s for the load, and %s is the limit of a pause: choose fewer -messages", paused.Round(time.Second), maxPause)
	}
	if err != nil {
		return nil, errors.Join(err, c.Signal(syscall.SIGCONT))
	}
	return load, nil
}

// await waits until the consumer has written so many rows. It returns how many they are and
// when it saw the last one. It asks rarely while many are missing: a question costs CPU time.
func (c *consumer) await(ctx context.Context, want int64, bar *progress.Bar) (rows int64, at time.Time, err error) {
	began := time.Now()
	at = began
	for {
		now, err := c.written(ctx)
		if err != nil {
			return rows, at, err
		}
		if now != rows {
			rows, at = now, time.Now()
		}
		if bar != nil {
			bar.Set(uint64(rows), uint64(want)) //nolint:gosec // not negative
		}
		if rows >= want || time.Since(at) > patience {
			return rows, at, nil
		}
		left := time.Duration(float64(time.Since(began)) * float64(want-rows) / float64(rows+1))
		select {
		case <-ctx.Done():
			return rows, at, context.Cause(ctx)
		case <-c.Done():
			return rows, at, fmt.Errorf("the consumer exited unexpectedly; its last lines:\n%s", c.Tail())
		case <-time.After(min(max(left/4, 50*time.Millisecond), time.Second)):
		}
	}
}

// startLoad starts a process that sends messages, and returns when the broker has acknowledged the first.
// With a rate of 0 it sends as fast as it can.
func startLoad(ctx context.Context, s *servers, messages, rate int) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := s.Description
	cmd := exec.CommandContext(ctx, program, loadCommand, //nolint:gosec // this program
		"-broker", "ssl://"+net.JoinHostPort(d.Public, strconv.Itoa(d.Ports.MQTTTLS)), "-ca", d.CAFile,
		"-devices", s.State.DevicesDir(), "-messages", strconv.Itoa(messages), "-rate", strconv.Itoa(rate))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(errors.New("the load generator ended before it sent anything"), cmd.Wait())
	}
	return cmd, nil
}
