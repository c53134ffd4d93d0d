# What the scripts share about a robot that may be running; put into each of them where it says so, because a script of a
# package cannot count on any file of the package being there.

units='lanyard-supervisor.service lanyard-front.service'
# What ran and what was enabled, from before the files are replaced until after. In /run: once the machine was
# started again, systemd has already started what is enabled.
kept=/run/lanyard-package.state

say() {
    echo "lanyard: $*"
}

# Not while an image is built: there is nothing to stop and nothing to ask, or it would be the host's.
systemd_runs() {
    [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ] && ! systemd-detect-virt --quiet --chroot
}

# Empty when systemd does not answer.
state_of() {
    systemctl show --property=ActiveState --value -- "$1" 2>/dev/null || true
}

remember() {
    for unit in $units; do
        case $(state_of "$unit") in
        active | activating | reloading) echo "running $unit" ;;
        esac
    done
    for unit in lanyard.target $units; do
        ! systemctl --quiet is-enabled -- "$unit" 2>/dev/null || echo "enabled $unit"
    done
}

# Fails while the unit is not known to have ended.
stop_unit() {
    case $(state_of "$1") in
    inactive | failed) return 0 ;;
    esac
    # Says itself why it cannot; what counts is what became of the unit.
    deb-systemd-invoke stop "$1" || true
    state=$(state_of "$1")
    case $state in
    inactive | failed) return 0 ;;
    esac
    say "error: $1 cannot be stopped (${state:-systemd does not answer})" >&2
    return 1
}

# Stops the supervisor first, then the front. On SIGTERM the supervisor stops every motor, granted or not, waits for the
# proof that each stands still, and writes down the true reason, "shutdown". The other way round it would find its
# front dead, stop only what that drove, and have a trip that somebody must reset. And when the supervisor cannot be
# stopped, nothing has been taken from whoever drives.
stop_motors() {
    systemd_runs || return 0
    [ -e "$kept" ] || remember >"$kept"
    before=$(state_of lanyard-supervisor.service)
    if [ "$before" = active ]; then
        say "stopping every motor before the $1; this takes up to 30 s"
    fi
    stop_unit lanyard-supervisor.service || return 1
    if [ "$before" = active ]; then
        case $(systemctl show --property=Result --value lanyard-supervisor.service) in
        success)
            say "every motor was stopped and proved that it stands still"
            ;;
        exit-code)
            say "warning: every motor was told to stop, not every one proved that it stands still;" \
                "look at the robot, then at: journalctl -u lanyard-supervisor" >&2
            ;;
        *)
            say "warning: the supervisor did not end by itself and was killed, upon which the kernel" \
                "sends the stops; look at the robot, then at: journalctl -u lanyard-supervisor" >&2
            ;;
        esac
    fi
    stop_unit lanyard-front.service
}

# Starts what ran before, and nothing else: what somebody has stopped stays stopped, also if it is enabled.
start_again() {
    [ -e "$kept" ] || return 0
    if systemd_runs; then
        systemctl --system daemon-reload || true
        for unit in $units; do
            grep -qx "running $unit" "$kept" || continue
            code=0
            # deb-systemd-invoke would ask it, but starts no unit that was started by hand; and it would wait for as
            # long as a CAN interface is missing.
            if [ -x /usr/sbin/policy-rc.d ]; then
                /usr/sbin/policy-rc.d "$unit" start || code=$?
            fi
            if [ "$code" = 101 ]; then
                say "warning: $unit ran before and is not started again: policy-rc.d forbids it" >&2
                continue
            fi
            # The front wants the supervisor, which somebody may have stopped.
            systemctl --no-block --job-mode=ignore-dependencies start "$unit" ||
                say "warning: $unit ran before and cannot be started again" >&2
        done
        ! grep -qx "running lanyard-supervisor.service" "$kept" || tell_start
    fi
    rm -f "$kept"
}

# What became of the supervisor. Ten seconds: it is armed within one, if its interfaces are there.
tell_start() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        case $(state_of lanyard-supervisor.service) in
        active | failed) break ;;
        esac
        sleep 1
    done
    case $(state_of lanyard-supervisor.service) in
    active)
        say "the supervisor runs again and is armed; what waits for a reset goes on waiting (lanyard status)"
        ;;
    activating)
        say "warning: the supervisor was started and is not armed yet:" \
            "$(systemctl show --property=StatusText --value lanyard-supervisor.service)" >&2
        ;;
    *)
        say "warning: the supervisor does not run, so nobody can drive: journalctl -u lanyard-supervisor" >&2
        ;;
    esac
}
