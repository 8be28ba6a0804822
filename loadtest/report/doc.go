// Package report is the result of a load test: the form of its files, and what
// is made of them. A [Summary] is summary.json; a [Run] has all files of a
// directory, which [Run.Write] writes and [Read] reads. [Summary.Text] is the
// short report, [WriteHTML] the page with charts, and [Compare] puts two runs side
// by side. Functions are safe for concurrent use; values are not. Nothing that is
// passed to them is kept or changed.
//
// It knows nothing of how a load is made: it imports internal/wording and nothing
// else of this module.
package report
