package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// A folder holds the data of one server: one SQLite file per database, the lock file,
// and the socket between the proxy and FerretDB.
type folder struct {
	path    string
	lock    *os.File
	scratch bool
}

// openFolder creates the folder if it does not exist, locks it, and makes it the working
// directory. All later paths are therefore short and need no escaping. A socket's path
// is limited to about a hundred characters, and FerretDB takes its folder as a URI.
func openFolder(s settings) (*folder, error) {
	f := &folder{scratch: s.scratch}
	var err error
	if s.scratch {
		f.path, err = os.MkdirTemp("", "mongod-")
	} else {
		f.path, err = filepath.Abs(s.data)
	}
	if err != nil {
		return nil, configErrorf("data folder: %v", err)
	}
	if err := f.open(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) open() error {
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return configErrorf("data folder %s: %v", f.path, rootCause(err))
	}
	// FerretDB finds its files with a glob. A folder without read permission would look
	// empty.
	if _, err := os.ReadDir(f.path); err != nil {
		return configErrorf("data folder %s: %v", f.path, rootCause(err))
	}
	if err := f.acquire(); err != nil {
		return err
	}
	if err := os.Chdir(f.path); err != nil {
		return configErrorf("data folder %s: %v", f.path, rootCause(err))
	}
	// A killed server leaves its socket behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return configErrorf("data folder %s: %v", f.path, rootCause(err))
	}
	return nil
}

// acquire locks the folder. Two servers on the same SQLite files would have two proxies,
// and their writes would race. The kernel releases the lock when the process ends. The
// file is never removed: after a removal, a third server could lock a new file.
func (f *folder) acquire() error {
	var err error
	f.lock, err = os.OpenFile(filepath.Join(f.path, "mongod.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return configErrorf("data folder %s: %v", f.path, rootCause(err))
	}
	err = syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return configErrorf("data folder %s: another server is using it", f.path)
	}
	if err != nil {
		return configErrorf("data folder %s: cannot be locked: %v", f.path, err)
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
