# The first program of a guest machine. The line that names its interpreter, a static busybox, is put
# in front when it is written out, beside the files it reads:
#   settings   kind, vcans (how many pairs of CAN interfaces), controllers (interfaces with a
#              controller, by name), busybox (this
#              interpreter), and as the host has their paths: host_busybox (the same program), host_ip
#              (iproute2's) and exchange (the folder of this run)
#   modules    kernel modules to load, in this order
#   shares     folders of the host that stay writable; the first is the exchange folder
#   job        the command, as a shell script
# It shows the command the host's files at their usual paths. Changes land in memory and are lost,
# except below the shares. The command's exit code is left in the exchange folder, file `status`.

here=${0%/*}
. "$here/settings"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Every tool is one of busybox's, never one of the host's.
bb() { "$busybox" "$@"; }

give_up() {
	echo "rig: $*"
	bb poweroff -f
}

bb mount -t proc proc /proc
bb mount -t sysfs sysfs /sys
bb mount -t devtmpfs devtmpfs /dev 2>/dev/null

while read -r module; do
	bb insmod "$module" || echo "rig: cannot load $module"
done <"$here/modules"

# The host's files, read-only, and where the new root is put together.
case $kind in
uml)
	lower=/
	stage=/mnt
	bb mount -t tmpfs -o mode=755 stage "$stage" || give_up "no memory file system on $stage"
	;;
qemu)
	lower=/host
	stage=/stage
	bb mkdir -p "$lower" "$stage"
	bb mount -t tmpfs -o mode=755 stage "$stage" || give_up "no memory file system on $stage"
	bb mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root "$lower" ||
		give_up "cannot mount the host's files"
	;;
esac
root=$stage/root
bb mkdir "$stage/changed" "$stage/scratch" "$root"
bb mount -t overlay -o "lowerdir=$lower,upperdir=$stage/changed,workdir=$stage/scratch" overlay "$root" ||
	give_up "cannot mount the overlay"

number=0
while read -r share; do
	bb mkdir -p "$root$share"
	case $kind in
	uml) bb mount -t hostfs -o "$share" host "$root$share" ;;
	qemu) bb mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap "share$number" "$root$share" ;;
	esac || give_up "cannot mount $share"
	number=$((number + 1))
done <"$here/shares"

# What a running system has besides files.
bb mkdir -p /dev/pts /dev/shm
bb mount -t devpts devpts /dev/pts
bb mount -t tmpfs -o mode=1777 shm /dev/shm
bb mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
	bb ln -sf "/proc/self/${link#*:}" "/dev/${link%%:*}"
done
bb mount -t tmpfs -o mode=755 run "$root/run"
bb mkdir -p "$root/run/lock"
bb hostname lanyard-rig

# The design never relies on the kernel's real-time throttling; without it, that shows.
echo -1 >/proc/sys/kernel/sched_rt_runtime_us

bb ip link set lo up
# Two ways out of the machine, one for each stream.
case $kind in
uml)
	out=/dev/tty1
	err=/dev/tty2
	bb stty -F "$out" raw -echo
	bb stty -F "$err" raw -echo
	;;
qemu)
	out='' err='' tries=0
	while :; do
		for port in /sys/class/virtio-ports/*; do
			case $(bb cat "$port/name" 2>/dev/null) in
			out) out=/dev/${port##*/} ;;
			err) err=/dev/${port##*/} ;;
			esac
		done
		[ -z "$out" ] || [ -z "$err" ] || break
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || give_up "the ports for the output are missing"
		bb sleep 0.1
	done
	;;
esac

# The command writes into pipes: what it starts can see that it is not on a terminal.
bb mkfifo /dev/rig-out /dev/rig-err
bb cat </dev/rig-out >"$out" &
out_pump=$!
bb cat </dev/rig-err >"$err" &
err_pump=$!

for folder in dev proc sys; do
	bb mount --rbind "/$folder" "$root/$folder"
done
# What is sent at one end arrives at the other as from a wire: the drives are at the far one.
number=0
while [ "$number" -lt "$vcans" ]; do
	bb chroot "$root" "$host_ip" link add dev "vcan$number" type vxcan peer name "wire$number" ||
		give_up "cannot make the pair vcan$number, wire$number (module vxcan)"
	for end in "wire$number" "vcan$number"; do
		bb ip link set "$end" mtu 72
		bb ip link set "$end" up || give_up "cannot bring up $end"
	done
	number=$((number + 1))
done
for controller in $controllers; do
	bb chroot "$root" "$host_ip" link set "$controller" type can bitrate 500000 &&
		bb chroot "$root" "$host_ip" link set "$controller" up ||
		give_up "cannot bring up $controller"
done
echo yes >"$root$exchange/started"
bb sync
bb chroot "$root" "$host_busybox" sh "$exchange/job" </dev/null >/dev/rig-out 2>/dev/rig-err
code=$?

# The pipes end when the last process lets go of them. Something left in the background gets two
# seconds, not for ever.
(bb sleep 2 && bb kill "$out_pump" "$err_pump") 2>/dev/null &
wait "$out_pump" "$err_pump"
if [ "$kind" = uml ]; then
	# Setting a terminal waits until everything written to it has left.
	bb stty -F "$out" raw
	bb stty -F "$err" raw
fi

echo "$code" >"$root$exchange/status"
bb sync
bb poweroff -f
