// Package doctor says whether a machine can carry a number of connections as
// it is set up, and the command that mends what stands against it. It only
// looks: nothing is changed.
package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"heartwheel/internal/wording"
)

// Schema names the form of a Report as JSON. A change that a reader of the
// older form would get wrong makes it /2; members may be added without.
const Schema = "heartwheel-doctor/1"

// The words of Plan.Role.
const (
	Server = "server" // the connections come from other machines
	Client = "client" // the load test's side; the server is elsewhere unless Target is on loopback
	Both   = "both"
)

// Roles has the words of Plan.Role.
var Roles = []string{Server, Client, Both}

// DefaultConnectRate is for a Plan that does not say: what comes back at once
// after a network was away for a moment.
const DefaultConnectRate = 20_000

// MaxConnections and MaxProcesses bound a Plan. What is beyond is a mistake.
const (
	MaxConnections = 1_000_000_000
	MaxProcesses   = 100_000
)

// A Plan is what the machine is to carry.
type Plan struct {
	Connections     int            `json:"connections"`
	Role            string         `json:"role"`             // one of Roles
	Processes       int            `json:"processes"`        // that share the connections, on each side; 0: 1
	ServerProcesses int            `json:"server_processes"` // of the server, with Both; 0: as many as Processes
	Sources         []netip.Prefix `json:"sources"`          // addresses of the clients; none: spread over 127.0.0.0/8 for a target on loopback, else one
	Target          string         `json:"target"`           // HOST:PORT that the clients connect to; empty: on loopback with Both, else on another machine
	ConnectRate     int            `json:"connect_rate"`     // new connections a second; 0: DefaultConnectRate
}

// A PlanError is everything that is wrong with a plan, one line each.
type PlanError struct{ Lines []string }

func (e *PlanError) Error() string { return strings.Join(e.Lines, "\n") }

// Validate reports everything that is wrong with p at once: a *PlanError, or
// nil.
func (p Plan) Validate() error {
	var lines []string
	between := func(name string, n, low, high int) {
		if n < low || n > high {
			lines = append(lines, fmt.Sprintf("%s %d: must lie between %d and %s", name, n, max(low, 1), wording.Grouped(int64(high))))
		}
	}
	between("connections", p.Connections, 1, MaxConnections)
	between("processes", p.Processes, 0, MaxProcesses)
	between("server-processes", p.ServerProcesses, 0, MaxProcesses)
	between("connect-rate", p.ConnectRate, 0, MaxConnections)
	const forClients = ": is for clients; leave it out, or write --role client or both"
	if !slices.Contains(Roles, p.Role) {
		lines = append(lines, fmt.Sprintf("role %q: must be server, client or both", p.Role))
	}
	if p.Role == Server && len(p.Sources) > 0 {
		lines = append(lines, "source"+forClients)
	}
	if p.Role == Server && p.Target != "" {
		lines = append(lines, "target"+forClients)
	}
	if len(lines) > 0 {
		return &PlanError{lines}
	}
	return nil
}

// effective fills in what was left at zero.
func (p Plan) effective() Plan {
	p.Processes = max(1, p.Processes)
	if p.Role != Both || p.ServerProcesses == 0 {
		p.ServerProcesses = p.Processes
	}
	if p.ConnectRate == 0 {
		p.ConnectRate = DefaultConnectRate
	}
	if p.Sources == nil {
		p.Sources = []netip.Prefix{} // [] in JSON
	}
	return p
}

func (p *Plan) serves() bool   { return p.Role != Client }
func (p *Plan) connects() bool { return p.Role != Server }

// loopback says whether the clients connect to a loopback address.
func (p *Plan) loopback() bool {
	if p.Target == "" {
		return p.Role == Both
	}
	host := p.Target
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.Trim(host, "[]")
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// pairs says whether both ends of every connection are on this machine.
func (p *Plan) pairs() bool { return p.Role == Both || p.Role == Client && p.loopback() }

// sockets is how many of them the machine has to carry.
func (p *Plan) sockets() int64 {
	if p.pairs() {
		return 2 * int64(p.Connections)
	}
	return int64(p.Connections)
}

// The words of Finding.Status.
const (
	OK      = "ok"
	Wrong   = "wrong"
	Unknown = "unknown"
)

// A Finding is the result of one check.
type Finding struct {
	Name   string   `json:"name"`
	Status string   `json:"status"` // one of the words above
	Have   string   `json:"have"`   // for people
	Need   string   `json:"need"`   // for people
	Fix    []string `json:"fix"`    // ways to mend it, the best first; each is a line to copy. Empty unless wrong
	Why    string   `json:"why"`
}

// A Report is the result of all checks.
type Report struct {
	Schema   string    `json:"schema"`
	Good     bool      `json:"ok"` // as OK
	Plan     Plan      `json:"plan"`
	Fits     *int      `json:"fits"`     // the most connections in the way of Plan, as the machine is; null: unknown
	Findings []Finding `json:"findings"` // in a fixed order
}

// OK says whether nothing is wrong. What is unknown is not wrong.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Status == Wrong })
}

// Problems is a line for everything that is wrong, with what mends it.
func (r Report) Problems() []string {
	var lines []string
	for _, f := range r.Findings {
		if f.Status != Wrong {
			continue
		}
		var ways []string
		for _, way := range f.Fix {
			if line, about, ok := strings.Cut(way, remark); ok {
				way = line + " (" + about + ")"
			}
			ways = append(ways, way)
		}
		lines = append(lines, fmt.Sprintf("%s: there is %s, and needed is %s; %s", f.Name, f.Have, f.Need, strings.Join(ways, "; or ")))
	}
	return lines
}

// Check looks at the machine for p, which has to be valid. fsys holds its
// /proc and /sys, as proc/… and sys/…; nil: the real ones.
func Check(fsys fs.FS, p Plan) Report {
	p = p.effective()
	m := &machine{}
	if fsys == nil && runtime.GOOS != "linux" {
		m.elsewhere(errors.New("is not looked at on " + runtime.GOOS + ", only on Linux"))
	} else {
		if fsys == nil {
			fsys = os.DirFS("/")
		}
		m.read(fsys)
	}
	r := Report{Schema: Schema, Plan: p, Findings: []Finding{}}
	for _, c := range checks {
		if c.applies == nil || c.applies(&p) {
			r.Findings = append(r.Findings, c.run(m, &p))
		}
	}
	r.Good = r.OK()
	r.Fits = fits(m, p)
	return r
}

// A check is one line of the report.
type check struct {
	name    string
	fixed   bool             // does not depend on the number of connections
	applies func(*Plan) bool // nil: to every plan
	look    func(*machine, *Plan) Finding
}

func (c *check) run(m *machine, p *Plan) Finding {
	f := c.look(m, p)
	f.Name = c.name
	if f.Fix == nil || f.Status != Wrong {
		f.Fix = []string{}
	}
	return f
}

// checks has all of them, in the order of the report.
var checks = []check{
	{name: "descriptors", look: descriptors},
	{name: "fs.nr_open", look: nrOpen},
	{name: "fs.file-max", look: fileMax},
	{name: "fs.epoll.max_user_watches", look: epollWatches},
	{name: "memory", look: memory},
	{name: "net.ipv4.tcp_mem", look: tcpMem},
	{name: "ports", applies: (*Plan).connects, look: ports},
	{name: "nf_conntrack_max", look: conntrack},
	{name: "net.core.somaxconn", fixed: true, applies: (*Plan).serves, look: somaxconn},
	{name: "net.ipv4.tcp_max_syn_backlog", fixed: true, applies: (*Plan).serves, look: synBacklog},
	{name: "net.ipv4.tcp_max_tw_buckets", fixed: true, look: twBuckets},
}

// fits is the largest number of connections for which nothing would be wrong;
// nil if that cannot be said.
func fits(m *machine, p Plan) *int {
	if m.descriptors.err != nil || m.available.err != nil {
		return nil
	}
	good := func(n int) bool {
		p.Connections = n
		for _, c := range checks {
			if !c.fixed && (c.applies == nil || c.applies(&p)) && c.look(m, &p).Status == Wrong {
				return false
			}
		}
		return true
	}
	low, high := 0, MaxConnections+1 // good, and not
	for high-low > 1 {
		if middle := low + (high-low)/2; good(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return &low
}
