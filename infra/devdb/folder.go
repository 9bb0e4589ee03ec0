package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// A folder holds the data of one server: one SQLite file per database, the
// lock, and the socket between the gate and FerretDB.
type folder struct {
	path    string
	lock    *os.File
	scratch bool
}

// openFolder makes the folder if need be, locks it, and makes it the working
// directory. From there every path is short and plain, whatever the folder is
// called: a socket's path may have about a hundred characters, and FerretDB
// takes its folder as a URI.
func openFolder(s settings) (*folder, error) {
	f := &folder{scratch: s.scratch}
	var err error
	if s.scratch {
		f.path, err = os.MkdirTemp("", "mongod-")
	} else {
		f.path, err = filepath.Abs(s.data)
	}
	if err != nil {
		return nil, refuse("data folder: %v", err)
	}
	if err := f.open(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) open() error {
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return refuse("data folder %s: %v", f.path, cause(err))
	}
	// FerretDB looks for its files with a glob, to which a folder that may not
	// be read is an empty one.
	if _, err := os.ReadDir(f.path); err != nil {
		return refuse("data folder %s: %v", f.path, cause(err))
	}
	if err := f.acquire(); err != nil {
		return err
	}
	if err := os.Chdir(f.path); err != nil {
		return refuse("data folder %s: %v", f.path, cause(err))
	}
	// A server that was killed leaves its socket behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return refuse("data folder %s: %v", f.path, cause(err))
	}
	return nil
}

// acquire locks the folder: two servers on one set of SQLite files would each
// have a gate, which is as good as none. The lock dies with the process; its
// file stays, as removing it would let a third server lock a new one.
func (f *folder) acquire() error {
	var err error
	f.lock, err = os.OpenFile(filepath.Join(f.path, "mongod.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return refuse("data folder %s: %v", f.path, cause(err))
	}
	err = syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return refuse("data folder %s: another server is using it", f.path)
	}
	if err != nil {
		return refuse("data folder %s: cannot be locked: %v", f.path, err)
	}
	return nil
}

func (f *folder) close() {
	if f.scratch {
		os.RemoveAll(f.path)
	}
	if f.lock != nil {
		f.lock.Close()
	}
}
