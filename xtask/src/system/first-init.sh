# The first program of the machine, before its disk is there. The line that names its interpreter is put in front
# when it is written out. See first.rs.

bb() { /rig/busybox "$@"; }

give_up() {
	echo "boot-test: $*" >/dev/console
	bb sync; bb poweroff -f
}

bb mount -t proc proc /proc
bb mount -t sysfs sysfs /sys
bb mount -t devtmpfs devtmpfs /dev
while read -r module; do
	bb insmod "$module" || echo "boot-test: cannot load $module"
done </rig/order

tries=0
until [ -b /dev/vda ]; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || give_up "there is no disk"
	bb sleep 0.1
done
bb mount -t ext4 /dev/vda /disk || give_up "cannot mount the disk"

state=/disk/var/lib/boot-test
bb mkdir -p "$state"
boot=$(bb cat "$state/boot" 2>/dev/null)
boot=$((${boot:-0} + 1))
# The host starts it, the hardware watchdog once more. Whatever else resets it would do so for ever.
[ "$boot" -le 2 ] || give_up "boot $boot: it was reset once too often"
echo "$boot" >"$state/boot"

# Each boot has two CAN cards of its own. On a reset QEMU 7.2 puts back where a controller's frames are read, and not
# where they are written: one that has ever received anything hands out rubbish from then on.
cards=
for device in /sys/bus/pci/devices/*; do
	case $(bb cat "$device/vendor" "$device/device" | bb tr '\n' ' ') in
	"0x10e8 0x8406 ") cards="$cards $device" ;;
	esac
done
# shellcheck disable=SC2086 # a list of words
set -- $cards
[ $# = 4 ] || give_up "there are $# CAN cards, not 4"
[ "$boot" = 1 ] && shift 2
echo 1 >"$1/remove"
echo 1 >"$2/remove"

for folder in dev proc sys; do
	bb mount --move "/$folder" "/disk/$folder"
done
if [ "$boot" = 1 ]; then
	bb mkdir -p /disk/payload
	bb mount --bind /payload /disk/payload
	bb chroot /disk /payload/install >/disk/dev/console 2>&1 </disk/dev/null || give_up "the package cannot be installed"
	bb umount /disk/payload
	bb rmdir /disk/payload
fi
exec /rig/busybox switch_root /disk /sbin/init
