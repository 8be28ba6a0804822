// Package loadtest plans, runs and judges a load test. [Build] makes a [Plan] from
// what a user wrote, and [Run] carries it out: it starts the event loops of
// loadtest/engine, samples the server meanwhile, and puts the results into a
// report.Summary with a verdict. Functions are safe for concurrent use, but two runs
// at a time disturb each other's figures; values are not.
//
// It ties loadtest/engine and loadtest/report together, which do not know each
// other. Of this module it imports those two, codec, internal/address, packages of
// internal/edge, internal/epoll and internal/wording.
package loadtest
