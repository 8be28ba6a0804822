package doctor

import (
	"fmt"

	"heartwheel/internal/wording"
)

// reserve is what heartwheel serve keeps of a limit for other things than
// connections: see reserve in package server.
func reserve(limit int64) int64 { return max(64, limit/50) }

// room is how many connections a process with the limit holds.
func room(limit int64) int64 { return max(0, limit-reserve(limit)) }

// limitFor is the smallest limit with room for n connections.
func limitFor(n int64) int64 { return n + max(64, (n-1)/49) }

// perProcess is how many connections a process holds, on the side with the
// fewest of them.
func (p *Plan) perProcess() int64 {
	processes := p.Processes
	if p.serves() {
		processes = min(processes, p.ServerProcesses)
	}
	return ceil(int64(p.Connections), int64(processes))
}

// processesFor is how many processes it takes if each has the limit; 0 if no
// number is enough.
func (p *Plan) processesFor(limit int64) int64 {
	if room(limit) == 0 {
		return 0
	}
	return ceil(int64(p.Connections), room(limit))
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

func unknown(err error, need, why string) Finding {
	return Finding{Status: Unknown, Have: "?", Need: need, Why: why + " Not known: it " + trimFile(err.Error()) + "."}
}

// enough is ok if there is as much as is needed.
func enough(have, need int64) string {
	if have < need {
		return Wrong
	}
	return OK
}

func descriptors(m *machine, p *Plan) Finding {
	need := limitFor(p.perProcess())
	f := Finding{Have: m.descriptors.String(), Need: wording.Grouped(need) + " a process",
		Why: fmt.Sprintf("Every connection takes a descriptor, and a process here has to hold %s of them, beside a reserve of 2 %% and at least 64. This is the hard limit; heartwheel raises the soft one itself. A unit of systemd has a limit of its own.",
			wording.Grouped(p.perProcess()))}
	if m.descriptors.err != nil {
		return unknown(m.descriptors.err, f.Need, f.Why)
	}
	f.Status = enough(m.descriptors.n, need)
	processes := ""
	if n := p.processesFor(m.descriptors.n); n > 0 {
		what := "of heartwheel loadtest"
		switch p.Role {
		case Server:
			what = "so many servers, each on an address of its own"
		case Both:
			what = "so many of the load test, and so many servers, each on an address of its own"
		}
		processes = command(fmt.Sprintf("--processes %d", n), what)
	}
	f.fix(
		command(fmt.Sprintf("ulimit -Hn %d", need), "as root, in the shell that then starts heartwheel"),
		command(fmt.Sprintf("LimitNOFILE=%d", need), "in the [Service] of a systemd unit"),
		processes)
	return f
}

func nrOpen(m *machine, p *Plan) Finding {
	need := limitFor(p.perProcess())
	f := Finding{Have: m.nrOpen.String(), Need: wording.Grouped(need), Why: "No process can be given a higher limit of descriptors than this."}
	if m.nrOpen.err != nil {
		return unknown(m.nrOpen.err, f.Need, f.Why)
	}
	f.Status = enough(m.nrOpen.n, need)
	if m.descriptors.err == nil && m.descriptors.n >= need {
		f.Status = OK // it has been given already
	}
	f.fix(setSysctl("fs.nr_open", need))
	return f
}

func fileMax(m *machine, p *Plan) Finding {
	need := p.sockets() + m.filesOpen.n + reserve(0)*int64(p.Processes+p.ServerProcesses)
	f := Finding{Have: m.fileMax.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("All processes of the machine share this many open files; %s are open now, and %s come. Root is exempt.", m.filesOpen, sockets(p))}
	if m.fileMax.err != nil {
		return unknown(m.fileMax.err, f.Need, f.Why)
	}
	f.Status = enough(m.fileMax.n, need)
	f.fix(setSysctl("fs.file-max", roundUp(need)))
	return f
}

func epollWatches(m *machine, p *Plan) Finding {
	need := p.sockets()
	f := Finding{Have: m.watches.String(), Need: wording.Grouped(need),
		Why: fmt.Sprintf("One user may wait for this many sockets with epoll, in all processes together; these are %s.", sockets(p))}
	if m.watches.err != nil {
		return unknown(m.watches.err, f.Need, f.Why)
	}
	f.Status = enough(m.watches.n, need)
	f.fix(setSysctl("fs.epoll.max_user_watches", roundUp(need)))
	return f
}

// sockets says how many there are, and why.
func sockets(p *Plan) string {
	text := wording.Grouped(p.sockets()) + " sockets"
	if p.pairs() {
		text += " (both ends of each connection)"
	}
	return text
}
