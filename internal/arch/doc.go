// Package arch holds the tests of the module's form: which package may import
// which, the length of lines, and what the documents cite. It imports nothing of
// this module.
package arch
