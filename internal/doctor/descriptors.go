package doctor

import (
	"fmt"

	"heartwheel/internal/wording"
)

// reserve returns the descriptors that heartwheel serve keeps for other things
// than connections: see reserve in package server.
func reserve(limit int64) int64 { return max(64, limit/50) }

// room returns the number of connections that fit into a process with the limit.
func room(limit int64) int64 { return max(0, limit-reserve(limit)) }

// limitFor returns the smallest limit with room for n connections.
func limitFor(n int64) int64 { return n + max(64, (n-1)/49) }

// perProcess returns the connections of a process, on the side with fewer
// processes.
func (p *Plan) perProcess() int64 {
	processes := p.Processes
	if p.serves() {
		processes = min(processes, p.ServerProcesses)
	}
	return ceil(int64(p.Connections), int64(processes))
}

// processesFor returns the number of processes needed if each has the limit; 0 if
// no number is enough.
func (p *Plan) processesFor(limit int64) int64 {
	if room(limit) == 0 {
		return 0
	}
	return ceil(int64(p.Connections), room(limit))
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

func unknown(err error, need, why string) Finding {
	return Finding{Status: Unknown, Have: "?", Need: need, Why: why + " Unknown: " + err.Error() + "."}
}

// atLeast returns OK if have is at least need, else Wrong.
func atLeast(have, need int64) string {
	if have < need {
		return Wrong
	}
	return OK
}

func descriptors(m *machine, p *Plan) Finding {
	need := limitFor(p.perProcess())
	f := Finding{Have: m.descriptors.String(), Need: wording.Grouped(need) + " a process",
		Why: fmt.Sprintf("Each connection takes a descriptor. A process has up to %s connections and a reserve of "+
			"2 %%, at least 64. This is the hard limit; heartwheel raises the soft limit itself. "+
			"A systemd unit has its own limit.", wording.Grouped(p.perProcess()))}
	if m.descriptors.err != nil {
		return unknown(m.descriptors.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.descriptors.n, need)
	processes := ""
	if n := p.processesFor(m.descriptors.n); n > 0 {
		note := "for heartwheel loadtest"
		switch p.Role {
		case Server:
			note = fmt.Sprintf("%d servers, each on its own address", n)
		case Both:
			note += fmt.Sprintf(", and %d servers, each on its own address", n)
		}
		processes = command(fmt.Sprintf("--processes %d", n), note)
	}
	f.fix(
		command(fmt.Sprintf("ulimit -Hn %d", need), "as root, in the shell that starts heartwheel"),
		command(fmt.Sprintf("LimitNOFILE=%d", need), "in the [Service] section of a systemd unit"),
		processes)
	return f
}

func nrOpen(m *machine, p *Plan) Finding {
	need := limitFor(p.perProcess())
	f := Finding{Have: m.nrOpen.String(), Need: wording.Grouped(need),
		Why: "No process can have a higher descriptor limit than this."}
	if m.nrOpen.err != nil {
		return unknown(m.nrOpen.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.nrOpen.n, need)
	if m.descriptors.err == nil && m.descriptors.n >= need {
		f.Status = OK // this process has the limit already
	}
	f.fix(setSysctl("fs.nr_open", need))
	return f
}

func fileMax(m *machine, p *Plan) Finding {
	need := p.sockets() + m.filesOpen.n + reserve(0)*int64(p.Processes+p.ServerProcesses)
	f := Finding{Have: m.fileMax.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("The limit of open files for the whole machine; %s are open now, and %s will be added. "+
			"Root is exempt.", m.filesOpen, sockets(p))}
	if m.fileMax.err != nil {
		return unknown(m.fileMax.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.fileMax.n, need)
	f.fix(setSysctl("fs.file-max", roundUp(need)))
	return f
}

func epollWatches(m *machine, p *Plan) Finding {
	need := p.sockets()
	f := Finding{Have: m.watches.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("The number of sockets that all processes of a user together may watch with epoll; "+
			"here %s.", sockets(p))}
	if m.watches.err != nil {
		return unknown(m.watches.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.watches.n, need)
	f.fix(setSysctl("fs.epoll.max_user_watches", roundUp(need)))
	return f
}

// sockets describes the number of sockets.
func sockets(p *Plan) string {
	text := wording.Grouped(p.sockets()) + " sockets"
	if p.pairs() {
		text += " (both ends of each connection)"
	}
	return text
}
