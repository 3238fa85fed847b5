package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/prometheus/procfs"
)

// processes are those of a run.
type processes struct {
	up  int // `f2mesh up`, the parent of Mosquitto, PostgreSQL and PgBouncer
	own int // the consumer; f2mesh's is up itself
}

// usage is the CPU time that processes have used so far, in seconds, and their memory.
type usage struct {
	own, mosquitto, postgres float64
	peak                     uint64  // bytes of the consumer, since resetPeak
	broker                   uint64  // bytes of Mosquitto
	machine                  float64 // CPU time of all processes of the machine
}

// measure reads /proc. Each process counts with those of its children that have ended. PgBouncer
// belongs to the consumer: only f2mesh needs it.
func (p processes) measure(fs procfs.FS) (u usage, err error) {
	all, err := fs.AllProcs()
	if err != nil {
		return u, fmt.Errorf("listing processes: %w", err)
	}
	stats := map[int]procfs.ProcStat{}
	for _, one := range all {
		if s, err := one.Stat(); err == nil { // the others have just ended
			stats[one.PID] = s
		}
	}
	for _, one := range all {
		s := stats[one.PID]
		ended := procfs.ProcStat{UTime: uint(s.CUTime), STime: uint(s.CSTime)}
		seconds := s.CPUTime() + ended.CPUTime()
		switch parent := stats[s.PPID]; {
		case one.PID == p.own || s.PPID == p.up && s.Comm == "pgbouncer":
			status, err := one.NewStatus()
			if err != nil {
				return u, fmt.Errorf("reading the memory of process %d: %w", one.PID, err)
			}
			u.own += seconds
			u.peak += status.VmHWM
		case s.PPID == p.up && s.Comm == "mosquitto":
			u.mosquitto += seconds
			u.broker += uint64(s.ResidentMemory()) //nolint:gosec // not negative
		case s.PPID == p.up && s.Comm == "postgres" || parent.PPID == p.up && parent.Comm == "postgres":
			u.postgres += seconds
		}
	}
	total, err := fs.Stat()
	if err != nil {
		return u, fmt.Errorf("reading the CPU time of the machine: %w", err)
	}
	c := total.CPUTotal
	u.machine = c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ
	return u, nil
}

// resetPeak has the kernel begin anew with the consumer's peak memory.
func (p processes) resetPeak() error {
	if err := os.WriteFile("/proc/"+strconv.Itoa(p.own)+"/clear_refs", []byte("5"), 0); err != nil {
		return fmt.Errorf("resetting the peak memory: %w", err)
	}
	return nil
}
