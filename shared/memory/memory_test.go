package memory

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestLimit_Lowest(t *testing.T) {
	t.Parallel()
	const v2, v1 = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	none := limit(fstest.MapFS{}) // GOMEMLIMIT, if the environment sets it
	for name, tt := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control group":          {nil, none},
		"version 2":                 {map[string]string{v2: "134217728\n"}, 128 << 20},
		"version 2 without a limit": {map[string]string{v2: "max\n"}, none},
		"version 1":                 {map[string]string{v1: "67108864\n"}, 64 << 20},
		"version 1 without a limit": {map[string]string{v1: "9223372036854771712\n"}, min(none, 9223372036854771712)},
		"both, version 1 lower":     {map[string]string{v2: "134217728\n", v1: "67108864\n"}, 64 << 20},
		"both, version 2 lower":     {map[string]string{v2: "67108864\n", v1: "134217728\n"}, 64 << 20},
		"invalid text in the file":  {map[string]string{v2: "-1\n", v1: "lots"}, none},
		"more than an int64":        {map[string]string{v1: "18446744073709551615\n"}, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := fstest.MapFS{}
			for f, text := range tt.files {
				files[f] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := limit(files); got != min(tt.want, none) {
				t.Errorf("got %d, want %d", got, min(tt.want, none))
			}
		})
	}
}

func TestLimit_GOMEMLIMIT(t *testing.T) {
	// not parallel: the limit belongs to the process
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	for text, want := range map[string]int64{"max": 1 << 30, "2147483648": 1 << 30, "536870912": 512 << 20} {
		files := fstest.MapFS{"sys/fs/cgroup/memory.max": {Data: []byte(text)}}
		if got := limit(files); got != want {
			t.Errorf("memory.max %s: got %d, want %d", text, got, want)
		}
	}
}
