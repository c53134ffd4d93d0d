#!/bin/sh
# Runs the tests of this boot, started by systemd; what it prints goes to the host, which reads the lines that begin
# with "boot-test: " (report.rs). The first boot ends in a machine on which nothing runs any more, the second one in
# switching off. Without tests for a second boot there is none.
cd /usr/lib/boot-test || exit
export LANYARD_BIN_DIR=/usr/lib/boot-test
boot=$(cat /var/lib/boot-test/boot)
echo "boot-test: boot $boot"

run() {
	./system-test --test-threads=1 "$@" </dev/null
	code=$?
	# 101 is the harness's own code for tests that failed.
	case $code in 0 | 101) ;; *) echo && echo "boot-test: died: $* (exit code $code)" ;; esac
}

end() {
	echo "boot-test: end"
	sync
	systemctl poweroff --force --force
	exit
}

# What is wanted; without a word everything.
set --
while read -r word; do set -- "$@" "$word"; done <arguments

case $boot in
1)
	run "$@" --skip second::
	./system-test --list "$@" | grep -q ^second:: || end
	# The second boot finds no adapter, until a test plugs it in.
	echo 'blacklist kvaser_pci' >/etc/modprobe.d/boot-test.conf
	# Held over whatever comes now: the second boot looks for it.
	lanyard estop >/var/lib/boot-test/estop
	# A program gone wild with the highest priority there is, on every processor: neither the supervisor nor PID 1
	# runs any more, so nobody feeds the hardware watchdog.
	echo "boot-test: from here on nothing runs"
	sync
	echo -1 >/proc/sys/kernel/sched_rt_runtime_us
	for cpu in 0 1; do
		chrt -f 99 taskset -c "$cpu" sh -c 'while :; do :; done' &
	done
	wait
	;;
2)
	run "$@" --skip first::
	end
	;;
esac
