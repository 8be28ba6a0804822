package report

import (
	"slices"

	"heartwheel/internal/wording"
)

// figures are the rows of the table, in its order.
var figures = slices.Concat(
	[]figureOf{
		countFigure("connections established", func(s *Summary) int { return s.Connections.Established }),
		countFigure("connections failed", func(s *Summary) int { return s.Connections.Failed }),
		countFigure("connections refused", func(s *Summary) int { return s.Connections.Refused }),
		{"connects a second", "per_s", func(s *Summary) *float64 { return nonZero(s.Connections.RateReal) }},
	},
	percentileFigures("connect time", "us", func(s *Summary) *Distribution { return s.Connections.TimeUS }),
	percentileFigures("TCP connect", "us", func(s *Summary) *Distribution { return s.Connections.TCPUS }),
	percentileFigures("TLS handshake", "us", func(s *Summary) *Distribution { return s.Connections.TLSUS }),
	percentileFigures("WebSocket upgrade", "us", func(s *Summary) *Distribution { return s.Connections.UpgradeUS }),
	[]figureOf{
		{"frames answered a second", "per_s", func(s *Summary) *float64 { return nonZero(s.Frames.PerSecond) }},
		countFigure("wrong answers", func(s *Summary) int { return int(s.Frames.Wrong) }),
		countFigure("unanswered frames", func(s *Summary) int { return int(s.Frames.Unanswered) }),
	},
	percentileFigures(ResponseName, "us", func(s *Summary) *Distribution { return s.Response.distribution() }),
	percentileFigures(ServiceName, "us", func(s *Summary) *Distribution { return s.Service.distribution() }),
	[]figureOf{
		detectionFigure("dead peers injected", func(d *Detection) int { return d.Injected }),
		detectionFigure("dead peers detected", func(d *Detection) int { return d.Detected }),
		detectionFigure("dead peers not detected", func(d *Detection) int { return d.Undetected }),
		detectionFigure("dead peers detected early", func(d *Detection) int { return d.Early }),
		detectionFigure("dead peers detected late", func(d *Detection) int { return d.Late }),
	},
	percentileFigures("detection error", "ms", func(s *Summary) *Distribution {
		if s.Detection == nil {
			return nil
		}
		return s.Detection.ErrorMS
	}),
	[]figureOf{
		countFigure("false kills", func(s *Summary) int { return s.FalseKills.Count }),
		countFigure("unexplained closes", func(s *Summary) int { return s.Unexplained.Count }),
		serverFigure("server: processor", "percent", func(v *Server) float64 { return v.CPUPercent }),
		serverFigure("server: processor, at most", "percent", func(v *Server) float64 { return v.CPUPercentMax }),
		serverFigure("server: resident at the end of hold", "bytes",
			func(v *Server) float64 { return float64(v.RSSAfterBytes) }),
		serverFigure("server: user memory, a connection", "bytes",
			func(v *Server) float64 { return v.UserBytesPerConnection }),
		serverFigure("kernel: memory, a socket", "bytes", func(v *Server) float64 { return v.KernelBytesPerSocket }),
		serverFigure("server: loop lag p99, at most", "us", func(v *Server) float64 { return v.LoopLagP99US }),
	},
	percentileFigures("generator: frames later than due", "us",
		func(s *Summary) *Distribution { return s.Generator.LagUS }),
	[]figureOf{
		{"generator: processor", "percent", func(s *Summary) *float64 {
			total := 0.0
			for _, p := range s.Generator.CPU {
				total += p.CPUPercent
			}
			return nonZero(wording.Thousandths(total))
		}},
		{"generator: user memory, a connection", "bytes",
			func(s *Summary) *float64 { return nonZero(s.Generator.HeapPerConn) }},
	},
)

type figureOf struct {
	name, unit string
	of         func(*Summary) *float64
}

// nonZero is v, or null for 0, which means not measured.
func nonZero(v float64) *float64 {
	if v == 0 {
		return nil
	}
	return &v
}

func countFigure(name string, value func(*Summary) int) figureOf {
	return figureOf{name, "", func(s *Summary) *float64 {
		v := float64(value(s))
		return &v
	}}
}

func detectionFigure(name string, value func(*Detection) int) figureOf {
	return figureOf{name, "", func(s *Summary) *float64 {
		if s.Detection == nil {
			return nil
		}
		v := float64(value(s.Detection))
		return &v
	}}
}

func serverFigure(name, unit string, value func(*Server) float64) figureOf {
	return figureOf{name, unit, func(s *Summary) *float64 {
		if s.Server == nil {
			return nil
		}
		return nonZero(value(s.Server))
	}}
}

func (l *Latency) distribution() *Distribution {
	if l == nil {
		return nil
	}
	return &l.US
}

func percentileFigures(name, unit string, of func(*Summary) *Distribution) []figureOf {
	var list []figureOf
	for _, p := range []struct {
		name  string
		value func(*Distribution) float64
	}{
		{"p50", p50}, {"p90", func(d *Distribution) float64 { return d.P90 }}, {"p99", p99},
		{"p99.9", func(d *Distribution) float64 { return d.P999 }},
		{"max", func(d *Distribution) float64 { return d.Max }},
	} {
		list = append(list, figureOf{name + " " + p.name, unit, func(s *Summary) *float64 {
			d := of(s)
			if d == nil {
				return nil
			}
			v := p.value(d)
			return &v
		}})
	}
	return list
}
