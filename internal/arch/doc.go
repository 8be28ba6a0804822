// Package arch holds the tests of the module's form: which package may import
// which, and the length of lines.
package arch
