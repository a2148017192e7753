package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// server is a process of Passbook, which keeps its address over restarts.
type server struct {
	address string
	process *exec.Cmd
}

// startServer waits until the server is ready.
func startServer() (*server, error) {
	s := &server{address: "127.0.0.1:0"}
	return s, s.start()
}

func (s *server) start() error {
	s.process = exec.Command(os.Getenv("PASSBOOK_TEST_BIN"), "serve", "--listen", s.address)
	s.process.Stderr = os.Stderr
	output, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if rest, is := strings.CutPrefix(lines.Text(), "ready: listening on "); is {
			s.address, _, _ = strings.Cut(rest, ",")
			go func() { _, _ = io.Copy(io.Discard, output) }()
			return nil
		}
	}
	return fmt.Errorf("the server on %s ended before it was ready: %w", s.address, s.process.Wait())
}

// kill ends the process without a chance to say anything.
func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

func (s *server) restart() error {
	s.kill()
	return s.start()
}

// pause stops the process until it gets SIGCONT.
func (s *server) pause() error { return s.process.Process.Signal(syscall.SIGSTOP) }

func (s *server) resume() error { return s.process.Process.Signal(syscall.SIGCONT) }
