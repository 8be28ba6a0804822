// Package faults holds tests of the built command as a process of its own:
// real binary, real sockets, real clock. It has no code beside its tests.
//
// Nothing here fails because a machine is slow. Whatever may be late on either
// side is measured in the same run, and a bound is widened by just that.
//
// It imports nothing of this module.
package faults
