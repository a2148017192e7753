# Read by the other scripts: `SCRIPT --help` prints the comment at the top of SCRIPT, and does nothing else.
# shellcheck shell=sh
case ${1:-} in
    -h | --help)
        sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
        exit
        ;;
esac
