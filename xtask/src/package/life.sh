#!/bin/sh
# The life of a package, from the first installation to the purge, in a copy of this machine that nobody sees: run as root
# in a mount and PID namespace of its own by life.rs, which knows what this is for. $1: the package.
set -eu
# Progress, as everything the tasks report; stdout is for the paths of the packages.
exec >&2

scene=/mnt
mount -t tmpfs -o mode=755 none "$scene"
mkdir "$scene/changes" "$scene/work" "$scene/root"
# Everything that is written stays in memory.
mount -t overlay none -o "lowerdir=/,upperdir=$scene/changes,workdir=$scene/work" "$scene/root"
mount -t tmpfs -o mode=755 none "$scene/root/run"
mount -t proc none "$scene/root/proc"
mount --rbind /dev "$scene/root/dev"
cp "$1" "$scene/root/root/real.deb"
cat >"$scene/root/root/life" <<'INSIDE'
#!/bin/sh
set -eu
cd /root
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
config=/etc/lanyard/lanyard.toml
units='lanyard-supervisor.service lanyard-front.service'
said=/root/said

fail() {
    echo "package: $*" >&2
    echo "what was printed last:" >&2
    cat "$said" >&2
    exit 1
}
step() { echo "  $*"; }
# dpkg must succeed, or must fail.
works() { "$@" >"$said" 2>&1 </dev/null || fail "failed: $*"; }
refused() { ! "$@" >"$said" 2>&1 </dev/null || fail "succeeded: $*"; }
says() { grep -q -- "$1" "$said" || fail "does not say: $1"; }
silent() { ! grep -q -- "$1" "$said" || fail "says: $1"; }
# Whatever has the name anywhere where a package could have put it.
traces() { find /etc /usr /var/lib /var/cache -path /var/lib/dpkg -prune -o -name '*lanyard*' -print; }
permissions() { [ "$(stat -c '%a %U:%G' "$1")" = "$2" ] || fail "$1 is $(stat -c '%a %U:%G' "$1"), not $2"; }

# The same package with another version, and without the programs that are never started here: 40 installations take
# seconds that way. $1: version; $2: a command that changes the unpacked folder.
dpkg-deb -R real.deb unpacked
: >unpacked/usr/bin/lanyard-supervisor
: >unpacked/usr/bin/lanyard-front
variant() {
    cp -a unpacked variant
    sed -i "s/^Version:.*/Version: $1/" variant/DEBIAN/control
    (cd variant && eval "$2")
    dpkg-deb --root-owner-group -Znone -b variant "$1.deb" >/dev/null
    rm -rf variant
}
version=$(dpkg-deb -f real.deb Version)
variant "$version" 'true'
mv "$version.deb" first.deb
variant 1000.1 'true'
variant 1000.2 'echo "# of the new version" >>etc/lanyard/lanyard.toml'
variant 1000.3 'printf "#!/bin/sh\nexit 1\n" >DEBIAN/preinst'
rm -r unpacked

# What this machine may bring along.
dpkg -P lanyard >/dev/null 2>&1 || true
rm -f /usr/sbin/policy-rc.d
echo 'a line that is no path' >before
traces >>before

step 'installed where systemd does not run: nothing is enabled, the configuration is for root and the group only'
works dpkg -i real.deb
says 'installed; nothing is started'
says 'enable --now lanyard.target'
permissions $config '640 root:lanyard'
permissions /etc/lanyard '750 root:lanyard'
permissions /var/lib/lanyard '750 lanyard:lanyard'
[ "$(ls -A /var/lib/lanyard)" = first-start ] || fail 'nothing says that it is a first start'
getent passwd lanyard-front >/dev/null || fail 'there is no user lanyard-front'
id -nG lanyard-front | grep -qw lanyard || fail 'lanyard-front is not in the group lanyard'
[ -z "$(find /etc/systemd -name '*lanyard*')" ] || fail 'something is in /etc/systemd'
works dpkg --verify lanyard
[ ! -s "$said" ] || fail 'dpkg --verify finds a difference'
works lanyard check
works apt-get check
works dpkg -P lanyard

# From here on this machine has what the package needs and nothing else: dpkg reads its whole database every time.
needed='libc6:amd64 libgcc-s1:amd64 init-system-helpers systemd udev'
mkdir -p /root/dpkg/info /root/dpkg/updates /root/dpkg/triggers
dpkg-query -s $needed >/root/dpkg/status
for name in $needed; do cp "/var/lib/dpkg/info/$name.list" /root/dpkg/info/; done
cp /var/lib/dpkg/info/format /root/dpkg/info/
: >/root/dpkg/available
mount --bind /root/dpkg /var/lib/dpkg
works dpkg -i first.deb

step 'installed once more: the configuration is checked'
works dpkg -i first.deb
says 'configuration: .*: ok'

step 'upgraded with a changed configuration: it is kept without a question while the package brings the same'
sed -i 's/^max_rpm = 300$/max_rpm = 299/' $config
cp -p $config mine.toml
works dpkg -i 1000.1.deb
cmp -s $config mine.toml || fail 'the changed configuration is gone'
permissions $config '640 root:lanyard'

step 'upgraded to a package with another example: dpkg asks, and keeps what was changed when told so'
refused dpkg -i 1000.2.deb
says 'Configuration file .*lanyard.toml'
cmp -s $config mine.toml || fail 'the changed configuration is gone'
works dpkg --force-confold --configure lanyard
cmp -s $config mine.toml || fail 'the changed configuration is gone'
permissions $config '640 root:lanyard'
works dpkg --force-confold -i 1000.1.deb

step 'upgraded: what waits for a reset stays; from a version that kept nothing, no first start is claimed'
state=/var/lib/lanyard
rm $state/first-start
echo held >$state/latches
works dpkg --force-confold -i first.deb
works dpkg --force-confold -i 1000.1.deb
[ "$(ls -A $state)" = latches ] && [ "$(cat $state/latches)" = held ] || fail "in $state: $(ls -A $state)"
rm -r $state
works dpkg --force-confold -i first.deb
permissions $state '750 lanyard:lanyard'
[ -z "$(ls -A $state)" ] || fail "in $state: $(ls -A $state)"
works dpkg --force-confold -i 1000.1.deb
[ -z "$(ls -A $state)" ] || fail "in $state: $(ls -A $state)"

step 'upgraded with an unchanged configuration: it becomes the new one, with the permissions it had'
rm -f $config*
works dpkg --force-confmiss -i first.deb
works dpkg -i 1000.2.deb
tail -n1 $config | grep -q 'of the new version' || fail 'the unchanged configuration is still the old one'
permissions $config '640 root:lanyard'

step 'upgraded with mistakes in the configuration: dpkg is content, the mistake is named with what to do'
echo 'misspelt = 1' >>$config
works dpkg --force-confold -i 1000.1.deb
says 'does not take the configuration'
says 'misspelt'
says 'systemctl restart lanyard-supervisor'
cp -p mine.toml $config

step 'removed: the configuration stays; purged: no trace but the users, and what is not ours'
: >/etc/lanyard/keys.toml
: >/etc/lanyard/key.pem
works dpkg -r lanyard
[ -e $config ] && [ -e /etc/lanyard/keys.toml ] || fail 'the configuration is gone'
[ -d $state ] || fail 'what waits for a reset is gone'
works dpkg -P lanyard
says 'removed the keys of all clients'
says '/etc/lanyard is kept'
[ ! -e /etc/lanyard/keys.toml ] && [ ! -e $config ] || fail 'keys or configuration are still there'
[ -e /etc/lanyard/key.pem ] || fail 'what others put there is gone'
rm /etc/lanyard/key.pem
works dpkg -i first.deb
works dpkg -P lanyard
left=$(traces | grep -vxF -f before || true)
[ -z "$left" ] || fail "left behind: $left"
getent passwd lanyard >/dev/null || fail 'the user is gone'

# From here on a robot that runs: systemd is what this script says it is. Whether the real one does the same is for the
# machine that boots.
mkdir -p /run/systemd/system /run/fake /root/bin
cat >/root/bin/systemd-detect-virt <<'END'
#!/bin/sh
exit 1
END
cat >/root/bin/systemctl <<'END'
#!/bin/sh
cd /run/fake || exit 1
arguments=$*
for unit; do :; done
case $arguments in
*ActiveState*) cat "$unit" 2>/dev/null || echo inactive ;;
*Result*) cat result 2>/dev/null || echo success ;;
*StatusText*) echo 'waiting for can0' ;;
*is-enabled*) [ -e "$unit.enabled" ] || exit 1 ;;
*is-active*) [ "$(cat "$unit" 2>/dev/null)" = active ] ;;
*disable*)
    echo "disable" >>log
    rm -f ./*.enabled
    ;;
*enable*)
    echo "enable $unit" >>log
    : >"$unit.enabled"
    ;;
*stop*)
    echo "stop $unit" >>log
    [ -e stubborn ] || echo inactive >"$unit"
    ;;
*start*)
    echo "start $unit" >>log
    echo active >"$unit"
    case $arguments in
    *ignore-dependencies* | *supervisor*) ;;
    *) echo "start lanyard-supervisor.service, which it wants" >>log ;;
    esac
    ;;
esac
END
for name in udevadm modprobe; do printf '#!/bin/sh\n' >"/root/bin/$name"; done
chmod +x /root/bin/*
export PATH="/root/bin:$PATH"

# A robot with the first package, of which the named units run.
robot() {
    dpkg -P lanyard >/dev/null 2>&1 || true
    rm -rf /run/fake/* /run/lanyard-package.state
    works dpkg -i first.deb
    for unit; do echo active >"/run/fake/$unit"; done
    : >/run/fake/log
}
log() { paste -sd, /run/fake/log; }
logged() { [ "$(log)" = "$1" ] || fail "systemd was asked for: $(log); not for: $1"; }
stops='stop lanyard-supervisor.service,stop lanyard-front.service'
starts='start lanyard-supervisor.service,start lanyard-front.service'

step 'upgraded while the robot runs: every motor is stopped first, and that is said; then what ran runs again'
robot $units
works dpkg -i 1000.1.deb
logged "$stops,$starts"
says 'stopping every motor before the upgrade'
says 'proved that it stands still'
says 'runs again and is armed'
[ "$(grep -n 'stopping every motor' "$said" | cut -d: -f1)" -lt "$(grep -n '^Unpacking' "$said" | cut -d: -f1)" ] ||
    fail 'the motors are stopped too late'

step 'downgraded: the same'
: >/run/fake/log
works dpkg -i first.deb
logged "$stops,$starts"

step 'upgraded while one of both runs: the other stays stopped; what does not run is not started, enabled or not'
robot lanyard-supervisor.service
works dpkg -i 1000.1.deb
logged 'stop lanyard-supervisor.service,start lanyard-supervisor.service'
robot lanyard-front.service
works dpkg -i 1000.1.deb
logged 'stop lanyard-front.service,start lanyard-front.service'
robot
: >/run/fake/lanyard-supervisor.service.enabled
works dpkg -i 1000.1.deb
logged ''
silent 'stopping every motor'

step 'not every motor proved its standstill, or the supervisor had to be killed: said'
robot $units
echo exit-code >/run/fake/result
works dpkg -i 1000.1.deb
says 'not every one proved'
robot $units
echo timeout >/run/fake/result
works dpkg -i 1000.1.deb
says 'was killed'

step 'a supervisor that cannot be stopped: nothing is replaced, removed, or taken from whoever drives'
robot $units
: >/run/fake/stubborn
refused dpkg -i 1000.1.deb
says 'nothing is replaced under a running supervisor'
dpkg-query -W -f='${Version} ${db:Status-Status}' lanyard | grep -qx "$version installed" ||
    fail "dpkg says $(dpkg-query -W lanyard)"
! grep -q front /run/fake/log || [ "$(grep -c 'stop lanyard-front' /run/fake/log)" = 0 ] || fail "the front was stopped: $(log)"
refused dpkg -r lanyard
says 'a running supervisor is not removed'
! grep -q disable /run/fake/log || fail 'it was disabled all the same'
rm /run/fake/stubborn

step 'policy-rc.d forbids the stop: refused as well; the start: said'
printf '#!/bin/sh\n[ "$2" != stop ] || exit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
robot $units
refused dpkg -i 1000.1.deb
says 'nothing is replaced under a running supervisor'
printf '#!/bin/sh\n[ "$2" != start ] || exit 101\n' >/usr/sbin/policy-rc.d
robot $units
works dpkg -i 1000.1.deb
logged "$stops"
says 'policy-rc.d forbids'
rm /usr/sbin/policy-rc.d

step 'an upgrade that is given up: what ran runs again'
robot $units
refused dpkg -i 1000.3.deb
logged "$stops,$starts"
[ ! -e /run/lanyard-package.state ] || fail 'it still remembers what ran'

step 'removed while the robot runs: stopped first, the target too, then disabled; installed again, nothing starts'
robot $units
: >/run/fake/lanyard.target.enabled
works dpkg -r lanyard
logged "$stops,stop lanyard.target,disable"
says 'stopping every motor before the removal'
: >/run/fake/log
works dpkg -i first.deb
logged ''

step 'installed over a supervisor that was installed by hand: stopped first, started again'
dpkg -P lanyard >/dev/null 2>&1
for unit in $units; do echo active >"/run/fake/$unit"; done
: >/run/fake/log
works dpkg -i first.deb
logged "$stops,$starts"
says 'stopping every motor before the installation'
INSIDE
chroot "$scene/root" sh /root/life
