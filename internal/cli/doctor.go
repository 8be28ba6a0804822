package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"heartwheel/internal/address"
	"heartwheel/internal/config"
	"heartwheel/internal/doctor"
	"heartwheel/internal/settings"
	"heartwheel/internal/wording"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can carry a number of connections",
		Long: `Checks the limits of this machine for a number of connections: descriptors,
ports, queues, connection tracking, memory. For each limit that is too low it
prints the commands that raise it. Changes nothing.

With --json the report is one object: schema ("` + doctor.Schema + `"); ok;
plan with connections, role, processes, server_processes, sources, target and
connect_rate; fits, the most connections that this machine can carry in this
setup, or null; findings, each with name, status (ok, wrong or unknown), have,
need, fix (alternatives to copy, the best first; empty unless wrong) and why.

Exits 0 if no limit is wrong, 1 if one is, 64 for wrong usage. An unknown limit
counts as ok.`,
		Example: `  heartwheel doctor -c 1m
  heartwheel doctor -c 500k --role server --processes 30
  heartwheel doctor -c 50k --role client --source 10.0.0.8/29`,
		Args: noArgs,
	}
	f := doctorFlags{set: cmd.Flags()}
	f.set.SortFlags = false
	f.add("connections", "c", "number", "10k", "connections at one time")
	f.add("role", "", "word", doctor.Both, "what of them is on this machine; "+wording.Choice(doctor.Roles)+" ends")
	f.add("processes", "", "number", "1", "processes that share them, on each side")
	f.sources = f.set.StringArray("source", nil, "source address of clients or `range` of them; may be given several "+
		"times (default: ranges of 127.0.0.0/8 for a target on loopback, else one address)")
	f.add("target", "", "address", "", "HOST:PORT that clients connect to (default: on loopback with --role both, "+
		"else on another machine)")
	f.add("connect-rate", "", "number", "20k", "new connections a second that the server has to be ready for")
	asJSON := f.set.Bool("json", false, "write the report as JSON")
	for name, words := range map[string][]string{
		"connections":  nil,
		"role":         doctor.Roles,
		"processes":    nil,
		"source":       nil,
		"target":       nil,
		"connect-rate": nil,
	} {
		complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // no such flag
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		plan, err := f.plan()
		if err != nil {
			return err
		}
		report := doctor.Check(nil, plan)
		if *asJSON {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			err = enc.Encode(report)
		} else {
			err = report.Write(cmd.OutOrStdout())
		}
		switch {
		case err != nil:
			return &settings.Failure{Err: err}
		case !report.OK():
			return &settings.Failure{Err: errors.New("a limit is too low"), Logged: true}
		}
		return nil
	}
	return cmd
}

// doctorFlags are the flags of doctor as they were written.
type doctorFlags struct {
	set     *pflag.FlagSet
	values  map[string]*flagValue
	sources *[]string
}

func (f *doctorFlags) add(name, short, kind, def, help string) {
	if f.values == nil {
		f.values = map[string]*flagValue{}
	}
	f.values[name] = &flagValue{kind: kind, byDefault: def}
	f.set.VarP(f.values[name], name, short, help)
}

// plan is what the flags ask for. The error is a *settings.UsageError with a line for
// everything that is wrong.
func (f *doctorFlags) plan() (doctor.Plan, error) {
	var lines []string
	wrong := func(name, text string, err error) {
		lines = append(lines, fmt.Sprintf("%s %q (flag --%s): %s", name, text, name, err))
	}
	count := func(name string, most int) int {
		text := f.values[name].String()
		n, err := config.ParseNumber(text)
		if err == nil && (n < 1 || n > most) {
			err = fmt.Errorf("must lie between 1 and %d", most)
		}
		if err != nil {
			wrong(name, text, err)
			return 1
		}
		return n
	}
	p := doctor.Plan{
		Role: f.values["role"].String(), Target: f.values["target"].String(),
		Connections: count("connections", doctor.MaxConnections), Processes: count("processes", doctor.MaxProcesses),
		ConnectRate: count("connect-rate", doctor.MaxConnections),
	}
	for _, text := range *f.sources {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			wrong("source", text, errors.New("is not an address or a range of them; "+
				"write one such as 10.0.0.5 or 127.0.0.0/26"))
			continue
		}
		p.Sources = append(p.Sources, prefix.Masked())
	}
	if p.Target != "" {
		target, err := address.ParseHostPort(p.Target)
		if strings.Contains(p.Target, "://") {
			target, err = address.Parse(p.Target, address.TCP)
		}
		if err != nil || target.Host == "" || target.Port == 0 {
			wrong("target", p.Target, errors.New("is not an address; write HOST:PORT, such as 127.0.0.1:9000"))
		}
		p.Target = target.HostPort()
	}
	var plan *doctor.PlanError
	if errors.As(p.Validate(), &plan) {
		lines = append(lines, plan.Lines...)
	}
	if len(lines) > 0 {
		return p, &settings.UsageError{Lines: lines, Help: "heartwheel doctor"}
	}
	return p, nil
}
