#!/bin/sh
# What is done in the Debian before its first boot, as docs/install.md says it: the package, the adapter's files, a
# configuration, the target enabled. Runs in it, by chroot, with the payload at /payload. See first.rs.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

dpkg --force-unsafe-io -i /payload/lanyard.deb

# The adapter's files: only the driver is another one.
for kind in link network; do
	sed 's/^Driver=.*/Driver=kvaser_pci/' "/payload/can.$kind" >"/etc/systemd/network/80-lanyard.$kind"
done
systemctl enable systemd-networkd.service

# A robot with one ODrive wheel at the end of the wire. An emulated machine stands still at times: what watches over
# lateness and silence is patient.
mkdir -p /etc/lanyard
cat >/etc/lanyard/lanyard.toml <<'END'
[supervisor]
cpu = 1
reset = "auto"
front_window = "1s"
max_lateness = "390ms"
kernel_stop = "400ms"
stage_timeout = "5s"

[front]
listen = "0.0.0.0:8080"
insecure = true
heartbeat_window = "2s"

[[bus]]
name = "can0"

[[motor]]
name = "left"
bus = "can0"
driver = "odrive"
firmware = "0.6"
node = 3
after_stop = "hold"
max_rpm = 300
END
chown root:lanyard /etc/lanyard/lanyard.toml
chmod 640 /etc/lanyard/lanyard.toml
systemctl enable lanyard.target

# Processor and hardware watchdog: the examples, with this machine's numbers. systemd feeds nobody while it reads its
# units again, and that takes many seconds here at times.
mkdir -p /etc/systemd/system/lanyard-supervisor.service.d /etc/systemd/system.conf.d
sed 's/^CPUAffinity=.*/CPUAffinity=1/' /payload/cpu.conf >/etc/systemd/system/lanyard-supervisor.service.d/cpu.conf
sed 's/^RuntimeWatchdogSec=.*/RuntimeWatchdogSec=30s/' /payload/watchdog.conf >/etc/systemd/system.conf.d/watchdog.conf

# The journal stays after the watchdog's reset, and is seen by the host.
mkdir -p /var/log/journal /etc/systemd/journald.conf.d
cat >/etc/systemd/journald.conf.d/boot-test.conf <<'END'
[Journal]
Storage=persistent
SyncIntervalSec=1s
ForwardToConsole=yes
TTYPath=/dev/hvc0
MaxLevelConsole=info
END

# The tests.
install -d /usr/lib/boot-test
install -m 755 /payload/runner /payload/system-test /payload/lanyard-sim /usr/lib/boot-test/
install -m 644 /payload/arguments /payload/lanyard.deb /usr/lib/boot-test/
cat >/etc/systemd/system/boot-test.target <<'END'
[Unit]
Description=Lanyard's boot test
Wants=multi-user.target boot-test.service
After=multi-user.target
END
cat >/etc/systemd/system/boot-test.service <<'END'
[Unit]
Description=The tests of Lanyard's boot test
# Not after anything: they see for themselves what is up, and wait.
DefaultDependencies=no
After=sysinit.target dev-virtio\x2dports-out.device
Wants=dev-virtio\x2dports-out.device
[Service]
ExecStart=/usr/lib/boot-test/runner
StandardOutput=file:/dev/virtio-ports/out
StandardError=file:/dev/virtio-ports/out
# The tests use up the memory on purpose; they are not what is to end then.
OOMScoreAdjust=-900
OOMPolicy=continue
LimitRTPRIO=99
END
