// Package doctor checks whether a machine, as it is set up, can carry a number of
// connections, and names the commands that raise the limits that are too low. It
// changes nothing. Of this module it imports internal/wording.
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

// Schema names the JSON form of a Report. An incompatible change increments its
// number; new members do not.
const Schema = "heartwheel-doctor/1"

// The words of Plan.Role.
const (
	Server = "server" // the connections come from other machines
	Client = "client" // the load test's side; the server is on another machine unless Target is on loopback
	Both   = "both"   // both ends of every connection
)

// Roles lists the words of Plan.Role.
var Roles = []string{Server, Client, Both}

// DefaultConnectRate is the rate that a server should expect when many clients
// reconnect after a short network failure, in connections per second.
const DefaultConnectRate = 20_000

// MaxConnections and MaxProcesses bound a Plan, to catch mistakes.
const (
	MaxConnections = 1_000_000_000
	MaxProcesses   = 100_000
)

// A Plan is the load that the machine has to carry.
type Plan struct {
	Connections int    `json:"connections"` // open at the same time
	Role        string `json:"role"`        // one of Roles

	// Processes share the connections, on each side. 0 means 1.
	Processes int `json:"processes"`

	// ServerProcesses is the number on the server's side, for Both. 0 means
	// Processes.
	ServerProcesses int `json:"server_processes"`

	// Sources are the clients' addresses. None means ranges of 127.0.0.0/8 if
	// the target is on loopback, else one address.
	Sources []netip.Prefix `json:"sources"`

	// Target is the HOST:PORT that the clients connect to. Empty means on
	// loopback for Both, else on another machine.
	Target string `json:"target"`

	// ConnectRate is in new connections per second. 0 means DefaultConnectRate.
	ConnectRate int `json:"connect_rate"`
}

// A PlanError has a line for each mistake in a plan.
type PlanError struct{ Lines []string }

func (e *PlanError) Error() string { return strings.Join(e.Lines, "\n") }

// Validate reports everything that is wrong with p: nil or a *PlanError.
func (p Plan) Validate() error {
	var lines []string
	between := func(name string, n, low, high int) {
		if n < low || n > high {
			lines = append(lines, fmt.Sprintf("%s %d: must lie between %d and %s",
				name, n, max(low, 1), wording.Grouped(int64(high))))
		}
	}
	between("connections", p.Connections, 1, MaxConnections)
	between("processes", p.Processes, 0, MaxProcesses)
	between("server-processes", p.ServerProcesses, 0, MaxProcesses)
	between("connect-rate", p.ConnectRate, 0, MaxConnections)
	const forClients = ": applies to clients only; leave it out, or write --role client or both"
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

// withDefaults replaces zero values by their meaning.
func (p Plan) withDefaults() Plan {
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

// loopback reports whether the clients connect to a loopback address.
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

// pairs reports whether both ends of every connection are on this machine.
func (p *Plan) pairs() bool { return p.Role == Both || p.Role == Client && p.loopback() }

// sockets returns the number of sockets on this machine.
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
	Have   string   `json:"have"`   // text
	Need   string   `json:"need"`   // text
	Fix    []string `json:"fix"`    // alternatives, the best first, each a line to copy; empty unless Wrong
	Why    string   `json:"why"`
}

// A Report is the result of all checks.
type Report struct {
	Schema   string    `json:"schema"`
	Good     bool      `json:"ok"` // same as OK
	Plan     Plan      `json:"plan"`
	Fits     *int      `json:"fits"`     // the most connections that this machine carries in this setup; nil: unknown
	Findings []Finding `json:"findings"` // in a fixed order
}

// OK reports whether no finding is Wrong. Unknown counts as OK.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Status == Wrong })
}

// Problems returns a line for each finding that is Wrong, with its fixes.
func (r Report) Problems() []string {
	var lines []string
	for _, f := range r.Findings {
		if f.Status != Wrong {
			continue
		}
		var ways []string
		for _, way := range f.Fix {
			if line, note, ok := strings.Cut(way, comment); ok {
				way = line + " (" + note + ")"
			}
			ways = append(ways, way)
		}
		lines = append(lines, fmt.Sprintf("%s: have %s, need %s; %s",
			f.Name, f.Have, f.Need, strings.Join(ways, "; or ")))
	}
	return lines
}

// Check checks the machine for p, which must be valid. fsys holds its /proc and
// /sys, as proc/… and sys/…; nil means the real ones.
func Check(fsys fs.FS, p Plan) Report {
	p = p.withDefaults()
	m := &machine{}
	if fsys == nil && runtime.GOOS != "linux" {
		m.notLinux(errors.New("checked on Linux only, not on " + runtime.GOOS))
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
	find    func(*machine, *Plan) Finding
}

func (c *check) run(m *machine, p *Plan) Finding {
	f := c.find(m, p)
	f.Name = c.name
	if f.Fix == nil || f.Status != Wrong {
		f.Fix = []string{}
	}
	return f
}

// checks is in the order of the report.
var checks = []check{
	{name: "descriptors", find: descriptors},
	{name: "fs.nr_open", find: nrOpen},
	{name: "fs.file-max", find: fileMax},
	{name: "fs.epoll.max_user_watches", find: epollWatches},
	{name: "memory", find: memory},
	{name: "net.ipv4.tcp_mem", find: tcpMem},
	{name: "ports", applies: (*Plan).connects, find: ports},
	{name: "nf_conntrack_max", find: conntrack},
	{name: "net.core.somaxconn", fixed: true, applies: (*Plan).serves, find: somaxconn},
	{name: "net.ipv4.tcp_max_syn_backlog", fixed: true, applies: (*Plan).serves, find: synBacklog},
	{name: "net.ipv4.tcp_max_tw_buckets", fixed: true, find: twBuckets},
}

// fits returns the largest number of connections with no finding Wrong, nil if
// that is unknown.
func fits(m *machine, p Plan) *int {
	if m.descriptors.err != nil || m.available.err != nil {
		return nil
	}
	good := func(n int) bool {
		p.Connections = n
		for _, c := range checks {
			if !c.fixed && (c.applies == nil || c.applies(&p)) && c.find(m, &p).Status == Wrong {
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
