package doctor

import "fmt"

// Memory in bytes, as measured.
const (
	kernelSocket = 3900       // an idle established socket
	kernelPair   = 8100       // both ends of a connection over loopback
	userServer   = 1000       // a connection in the server
	userClient   = 500        // a connection in the load test
	process      = 20_000_000 // a process before its first connection
)

// memoryEach returns the memory of one connection on this machine.
func (p *Plan) memoryEach() (bytes int64, text string) {
	switch {
	case p.pairs():
		return kernelPair + userServer + userClient,
			"8.1 kB in the kernel for both ends, 1 kB in the server and 0.5 kB in the load test"
	case p.serves():
		return kernelSocket + userServer, "3.9 kB in the kernel and 1 kB in the server"
	}
	return kernelSocket + userClient, "3.9 kB in the kernel and 0.5 kB in the load test"
}

// memoryBase returns the memory of the processes before the first connection.
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
		Why: fmt.Sprintf("A connection takes %s. A process takes 20 MB without connections.", text)}
	if m.available.err != nil {
		return unknown(m.available.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.available.n, need)
	raise := ""
	if m.group != "" {
		f.Why += " Available is what the control group of this process allows: " + m.group + "."
		raise = command(fmt.Sprintf("echo %dM > %s", ceil(m.groupUsed+need, 1<<20), m.group),
			"as root, outside the container")
	} else {
		f.Why += " Available is MemAvailable in /proc/meminfo."
	}
	fewer := ""
	if n := (m.available.n - p.memoryBase()) / each; n >= 1000 {
		fewer = command(fmt.Sprintf("-c %dk", n/1000), "fewer connections")
	}
	f.fix(raise, fewer)
	if f.Status == Wrong && len(f.Fix) == 0 {
		f.fix(command("free -h", "too little memory is free: end other processes"))
	}
	return f
}

func tcpMem(m *machine, p *Plan) Finding {
	need := ceil(int64(p.Connections), 4) + m.tcpPagesNow.n
	f := Finding{Have: pages(m.tcpPages), Need: pages(reading{n: need}),
		Why: "Data that waits in a socket takes at least a page. Above the third number of this setting the kernel " +
			"drops it. Beats that are answered at once need almost nothing. This is for a beat from every fourth " +
			"connection, which is what arrives while the server stalls for a quarter of the interval."}
	if m.tcpPages.err != nil {
		return unknown(m.tcpPages.err, f.Need, f.Why)
	}
	f.Status = atLeast(m.tcpPages.n, need)
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
