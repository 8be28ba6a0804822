package doctor

import "fmt"

// Memory that a connection takes, in bytes, as measured: of the kernel for an
// idle established socket and for both ends over loopback, and of the
// processes.
const (
	kernelSocket = 3900
	kernelPair   = 8100
	userServer   = 1000
	userClient   = 500
	process      = 20_000_000 // before the first connection
)

// memoryEach is what one connection takes on this machine.
func (p *Plan) memoryEach() (bytes int64, text string) {
	switch {
	case p.pairs():
		return kernelPair + userServer + userClient, "8.1 kB of the kernel for both ends, 1 kB of the server and 0.5 kB of the load test"
	case p.serves():
		return kernelSocket + userServer, "3.9 kB of the kernel and 1 kB of the server"
	}
	return kernelSocket + userClient, "3.9 kB of the kernel and 0.5 kB of the load test"
}

func (p *Plan) memoryBase() int64 {
	switch {
	case p.Role == Both:
		return process * int64(p.Processes+p.ServerProcesses)
	case p.serves():
		return process * int64(p.ServerProcesses)
	}
	return process * int64(p.Processes)
}

func memory(m *machine, p *Plan) Finding {
	each, text := p.memoryEach()
	need := int64(p.Connections)*each + p.memoryBase()
	f := Finding{Have: bytesText(m.available.n), Need: bytesText(need),
		Why: fmt.Sprintf("A connection takes %s, and each process 20 MB from the start.", text)}
	if m.available.err != nil {
		return unknown(m.available.err, f.Need, f.Why)
	}
	f.Status = enough(m.available.n, need)
	raise := ""
	if m.group != "" {
		f.Why += " What is available is what the control group of this process leaves: " + m.group + "."
		raise = command(fmt.Sprintf("echo %dM > %s", ceil(m.groupUsed+need, 1<<20), m.group), "as root, outside of the container")
	} else {
		f.Why += " What is available is MemAvailable of /proc/meminfo."
	}
	fewer := ""
	if n := (m.available.n - p.memoryBase()) / each; n >= 1000 {
		fewer = command(fmt.Sprintf("-c %dk", n/1000), "so many fit")
	}
	f.fix(raise, fewer)
	if f.Status == Wrong && len(f.Fix) == 0 {
		f.fix(command("free -h", "there is too little to begin with: end what takes it"))
	}
	return f
}

func tcpMem(m *machine, p *Plan) Finding {
	need := ceil(int64(p.Connections), 4) + m.tcpPagesNow.n
	f := Finding{Have: pages(m.tcpPages), Need: pages(reading{n: need}),
		Why: "What waits in the sockets takes at least a page each; beyond the third number of this the kernel drops it. Beats that are answered at once take next to nothing; needed is room for a beat of every fourth connection, which is what comes while the server stands still for a quarter of the interval."}
	if m.tcpPages.err != nil {
		return unknown(m.tcpPages.err, f.Need, f.Why)
	}
	f.Status = enough(m.tcpPages.n, need)
	most := roundUp(need)
	f.fix(fmt.Sprintf(`sysctl -w net.ipv4.tcp_mem="%d %d %d"`, most/2, most*2/3, most))
	return f
}

func pages(r reading) string {
	text := r.String()
	if r.err == nil && r.n != unlimited {
		text += " pages"
	}
	return text
}
