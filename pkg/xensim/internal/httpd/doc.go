// Package httpd is the web server of a host, in the bytes of the real one (ocaml/libs/http-lib): header names and
// their order, reasons, html bodies of errors, the limit of 1024 bytes of headers, Content-Length demanded, keep-alive.
// It is no general web server: a Handler has the connection and writes what it likes.
package httpd
