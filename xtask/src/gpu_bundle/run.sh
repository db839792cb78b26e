#!/usr/bin/env bash
# Runs a bundle of GPU test executables on a machine with an NVIDIA driver; needs bash and coreutils, nothing else.
# What is in the bundle stands in bundle.tsv; every result goes into a folder of logs, a table, and JUnit XML on request.
set -u
LC_ALL=C
# Whether `&` in a replacement means the match depends on bash's version; here it never does.
shopt -u patsub_replacement 2>/dev/null

# The exit code that compute-sanitizer is told to use; no executable of a bundle uses it.
readonly SANITIZER_CODE=86
readonly TAB=$'\t'

usage() {
    cat <<'TEXT'
usage: run.sh [OPTION...] [-- ARGUMENT...]

  --filter TEXT        only tests and benches whose names contain TEXT; verify and examples are left out
  --list               list what would run and stop
  --only KIND          doctor, verify, tests, examples, benches or soak, which runs by this alone; may be given again
  --sanitize TOOL      under compute-sanitizer: memcheck, racecheck, synccheck or initcheck; without benches, unless by --only
  --sanitizer-option O one more option for compute-sanitizer, for example --leak-check=full; may be given again
  --junit FILE         write JUnit XML
  --results FILE       append measurements, one JSON object a line
  --logs DIR           where logs go (default: logs beside this script)
  --timeout SECONDS    for each executable (default: 900)
  --require-gpu        a missing GPU is a failure (default)
  --no-require-gpu     without a GPU tests are ignored, and say why
  --help               this text

ARGUMENTs are for the test and bench executables, for example --test-threads=4; and for the soak, for example --epochs 1000.
Exit code: 0 all passed, 1 something failed, 2 nothing could be run.
TEXT
}

die() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# ---- Arguments

filter='' list=0 sanitize='' junit='' results='' logs='' timeout_s=900 require=1
only=() extra=() sanitizer_options=()
value() { # OPTION COUNT: an option that needs a value has one
    (( $2 > 1 )) || die "$1 needs a value; see --help"
}
while (( $# > 0 )); do
    case $1 in
        --*=*) option=${1%%=*} text=${1#*=}; shift; set -- "$option" "$text" "$@"; continue ;;
        --filter) value "$1" $#; filter=$2; shift 2 ;;
        --list) list=1; shift ;;
        --only)
            value "$1" $#
            case $2 in
                doctor | verify | tests | examples | benches | soak) only+=("$2") ;;
                *) die "--only $2: there are doctor, verify, tests, examples, benches and soak" ;;
            esac
            shift 2 ;;
        --sanitize)
            value "$1" $#
            case $2 in
                memcheck | racecheck | synccheck | initcheck) sanitize=$2 ;;
                *) die "--sanitize $2: there are memcheck, racecheck, synccheck and initcheck" ;;
            esac
            shift 2 ;;
        --sanitizer-option) value "$1" $#; sanitizer_options+=("$2"); shift 2 ;;
        --junit) value "$1" $#; junit=$2; shift 2 ;;
        --results) value "$1" $#; results=$2; shift 2 ;;
        --logs) value "$1" $#; logs=$2; shift 2 ;;
        --timeout)
            value "$1" $#
            [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || die "--timeout $2: it must be whole seconds, from 1 up"
            timeout_s=$2; shift 2 ;;
        --require-gpu) require=1; shift ;;
        --no-require-gpu) require=0; shift ;;
        --help | -h) usage; exit 0 ;;
        --) shift; extra=("$@"); break ;;
        *) die "$1 is no option; see --help" ;;
    esac
done

wanted() { # KIND: it was asked for by --only, or nothing was
    local kind
    (( ${#only[@]} > 0 )) || return 0
    for kind in "${only[@]}"; do [[ $kind == "$1" ]] && return 0; done
    return 1
}

# ---- The bundle

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || die "the bundle's folder cannot be entered"
[[ -r $here/bundle.tsv ]] || die "$here/bundle.tsv is missing; copy the whole bundle"
commit='' glibc='' architecture='' format=''
kinds=() packages=() names=() files=()
while IFS=$TAB read -r key first second third; do
    case $key in
        format) format=$first ;;
        commit) commit=$first ;;
        glibc) glibc=$first ;;
        architecture) architecture=$first ;;
        tool | test | example | bench)
            [[ -f $here/$third ]] || die "$third is missing; copy the whole bundle"
            [[ -x $here/$third ]] || chmod +x "$here/$third" || die "$third cannot be made executable"
            kinds+=("$key") packages+=("$first") names+=("$second") files+=("$here/$third") ;;
    esac
done <"$here/bundle.tsv"
[[ $format == 1 ]] || die "bundle.tsv has format '$format', this script knows 1"

machine=$(uname -m)
[[ -z $architecture || $machine == "$architecture" ]] ||
    die "the executables are for $architecture, this machine is $machine"
command -v timeout >/dev/null || die "there is no 'timeout' command; install coreutils"
if [[ $glibc =~ ^2\.([0-9]+)$ ]]; then
    needed=${BASH_REMATCH[1]}
    if [[ $(getconf GNU_LIBC_VERSION 2>/dev/null) =~ ^glibc\ 2\.([0-9]+) ]] && (( BASH_REMATCH[1] < needed )); then
        die "the executables need glibc $glibc, this machine has 2.${BASH_REMATCH[1]}; make the bundle on an older system"
    fi
fi

sanitizer=()
if [[ -n $sanitize ]]; then
    # Tests of what a sanitizer takes away, such as kernels side by side, are then not applicable.
    export KASMINA_SANITIZER=$sanitize
    found=$(command -v compute-sanitizer)
    for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
        [[ -n $found || -z $folder ]] && continue
        for place in "$folder/bin" "$folder/compute-sanitizer"; do
            [[ -z $found && -x $place/compute-sanitizer ]] && found=$place/compute-sanitizer
        done
    done
    [[ -n $found ]] || die "compute-sanitizer is not in PATH, CUDA_HOME, CUDA_PATH or /usr/local/cuda; install it from the CUDA toolkit"
    # Tests make calls fail on purpose, and asking a driver for what it lacks is how the loader works: neither is an error.
    sanitizer=("$found" --tool "$sanitize" --error-exitcode "$SANITIZER_CODE" --report-api-errors no
        --target-processes all ${sanitizer_options[@]+"${sanitizer_options[@]}"})
fi

each() { # KIND: the indices of the executables of that kind
    local i
    for i in "${!kinds[@]}"; do [[ ${kinds[i]} == "$1" ]] && printf '%s\n' "$i"; done
}

if (( list )); then
    wanted doctor && [[ -z $filter ]] && echo doctor
    wanted verify && [[ -z $filter ]] && echo verify
    if wanted tests; then
        for i in $(each test); do
            "${files[i]}" --list ${filter:+"$filter"} | while IFS= read -r line; do
                [[ $line == *': test' ]] && echo "${packages[i]}/${names[i]} ${line%: test}"
            done
        done
    fi
    # Only executables: a bench or an example may know no list, and would start to work.
    wanted examples && [[ -z $filter ]] && for i in $(each example); do echo "example ${packages[i]}/${names[i]}"; done
    wanted benches && for i in $(each bench); do echo "bench ${packages[i]}/${names[i]}"; done
    exit 0
fi

absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; }
logs=$(absolute "${logs:-$here/logs}")
mkdir -p -- "$logs" && [[ -w $logs ]] || die "$logs cannot be written; name another folder with --logs"
for file in "$junit" "$results"; do
    if [[ -n $file ]]; then : >>"$file" || die "$file cannot be written"; fi
done
[[ -n $results ]] && { KASMINA_RESULTS=$(absolute "$results"); export KASMINA_RESULTS; }
export KASMINA_REQUIRE_GPU=$require KASMINA_COMMIT=$commit RUST_BACKTRACE=${RUST_BACKTRACE:-1}

# ---- One executable

child=''
stop() {
    # timeout makes a process group of its own, which the terminal's interrupt does not reach; it passes this one on.
    [[ -n $child ]] && kill -TERM "$child" 2>/dev/null
    echo 'stopped' >&2
    exit 130
}
trap stop INT TERM

now_ms() {
    if [[ -n ${EPOCHREALTIME:-} ]]; then
        local micro=${EPOCHREALTIME/./}
        echo $(( micro / 1000 ))
    else
        echo $(( SECONDS * 1000 ))
    fi
}
seconds() { printf '%d.%03d' $(( $1 / 1000 )) $(( $1 % 1000 )); }

elapsed=0 ended=''
execute() { # LOG COMMAND...: sets `elapsed`, in ms, and `ended`: empty, or how it went wrong
    local log=$1 code start
    shift
    start=$(now_ms)
    timeout --kill-after=10 "$timeout_s" "$@" >"$log" 2>&1 </dev/null &
    child=$!
    # A shell tells of crashed jobs in its own words; they are told of here.
    wait "$child" 2>/dev/null
    code=$?
    child=''
    elapsed=$(( $(now_ms) - start ))
    ended=''
    if (( (code == 124 || code == 137) && elapsed >= timeout_s * 1000 )); then
        ended="no end after $timeout_s s"
    elif (( code == SANITIZER_CODE )) && [[ -n $sanitize ]]; then
        ended="$sanitize found errors"
    elif (( code > 128 && code < 193 )); then
        ended="crashed by SIG$(kill -l $(( code - 128 )) 2>/dev/null || echo "NAL $(( code - 128 ))")"
    elif (( code != 0 )); then
        ended="exit code $code"
    fi
}

# ---- What a test executable says: libtest's lines, in a file that its tests do not write to

case_names=() case_ends=() case_texts=()
add_case() { case_names+=("$1") case_ends+=("$2") case_texts+=("$3"); }

read_events() { # FILE: fills the cases from the lines, and sets `announced` to the number that was to run
    local line at=-1 first=-1 last=-1 i next text
    local lines=() at_failed=()
    announced=0 open_test=''
    [[ -r $1 ]] && while IFS= read -r line || [[ -n $line ]]; do lines+=("$line"); done <"$1"
    for line in ${lines[@]+"${lines[@]}"}; do
        (( ++at ))
        if [[ $line == failures: ]]; then
            (( first < 0 )) && first=$at
            last=$at
        elif (( first >= 0 )); then
            :
        elif [[ $line =~ ^running\ ([0-9]+)\ tests?$ ]]; then
            announced=${BASH_REMATCH[1]}
        elif [[ $line =~ ^test\ ([^ ]+)\ +\.\.\.\ (ok|FAILED|ignored)(\ \((.*)\))?$ ]]; then
            case ${BASH_REMATCH[2]} in
                ok) add_case "${BASH_REMATCH[1]}" passed '' ;;
                ignored) add_case "${BASH_REMATCH[1]}" ignored "${BASH_REMATCH[4]:-}" ;;
                FAILED) at_failed+=("${#case_names[@]}"); add_case "${BASH_REMATCH[1]}" failed '' ;;
            esac
        elif [[ $line =~ ^test\ ([^ ]+)\ +\.\.\.\ ?$ ]]; then
            # Announced and never ended: it was running when the process died.
            open_test=${BASH_REMATCH[1]}
        fi
    done
    # The messages stand between the first "failures:" and the last, each under its test's name, in the same order.
    next=0 text=''
    (( first >= 0 )) && for (( at = first + 1; at < last; at++ )); do
        if (( next < ${#at_failed[@]} )) && [[ ${lines[at]} == "---- ${case_names[at_failed[next]]} ----" ]]; then
            (( next > 0 )) && case_texts[at_failed[next - 1]]="$text"
            (( ++next ))
            text=''
        else
            text+=${lines[at]}$'\n'
        fi
    done
    (( next > 0 )) && case_texts[at_failed[next - 1]]="$text"
    for i in ${at_failed[@]+"${at_failed[@]}"}; do
        text=${case_texts[i]}
        while [[ $text == $'\n'* ]]; do text=${text#$'\n'}; done
        while [[ $text == *$'\n' ]]; do text=${text%$'\n'}; done
        case_texts[i]=${text:-"see the log"}
    done
}

add_unreported() { # EXECUTABLE REASON: every test that should have run and did not report becomes an error
    local name known reported before=${#case_names[@]}
    while IFS= read -r name; do
        [[ $name == *': test' ]] || continue
        name=${name%: test} reported=0
        for known in ${case_names[@]+"${case_names[@]}"}; do [[ $known == "$name" ]] && reported=1; done
        (( reported )) && continue
        if [[ $name == "$open_test" ]]; then
            add_case "$name" error "$2 in this test"
        else
            add_case "$name" error "$2${open_test:+ in $open_test}, this test did not report"
        fi
    done < <(timeout 60 "$1" --list ${filter:+"$filter"} ${extra[@]+"${extra[@]}"} 2>/dev/null </dev/null)
    # An executable that cannot even list its tests is still one error.
    (( ${#case_names[@]} > before )) || add_case "${open_test:-executable}" error "$2"
}

# ---- Reports

total=0 bad=0 skipped=0 matched=0 rows=()
suites_xml=''
escape() {
    local text=$1
    # XML 1.0 has no way to write these.
    text=${text//[$'\x01'-$'\x08'$'\x0b'$'\x0c'$'\x0e'-$'\x1f']/}
    text=${text//$'\xef\xbf\xbe'/}
    text=${text//$'\xef\xbf\xbf'/}
    text=${text//&/&amp;}
    text=${text//</&lt;}
    text=${text//>/&gt;}
    text=${text//\"/&quot;}
    escaped=$text
}
escape_attribute() {
    escape "$1"
    escaped=${escaped//$'\n'/&#10;}
    escaped=${escaped//$'\r'/&#13;}
    escaped=${escaped//$'\t'/&#9;}
}
tail_of() { # LOG: its end, as text that XML can hold
    if command -v iconv >/dev/null; then
        tail -n 40 -- "$1" | tr -d '\000' | iconv -f UTF-8 -t UTF-8 -c
    else
        tail -n 40 -- "$1" | tr -d '\000' | tr -c '\11\12\15\40-\176' '?'
    fi
}

finish() { # SUITE LOG NOTE: counts the cases, prints a line, and keeps a row of the table and a suite of the XML
    local suite=$1 log=$2 note=$3 i passed=0 failed=0 ignored=0 errors=0 xml='' tag message
    for i in "${!case_names[@]}"; do
        case ${case_ends[i]} in
            passed) (( ++passed )) ;;
            failed) (( ++failed )) ;;
            ignored) (( ++ignored )) ;;
            error) (( ++errors )) ;;
        esac
        escape_attribute "${case_names[i]}"
        xml+="    <testcase classname=\"${suite//\//.}\" name=\"$escaped\""
        if [[ ${case_ends[i]} == passed ]]; then xml+=$'/>\n'; continue; fi
        case ${case_ends[i]} in ignored) tag=skipped ;; failed) tag=failure ;; *) tag=error ;; esac
        escape_attribute "${case_texts[i]%%$'\n'*}"
        message=$escaped
        escape "${case_texts[i]}"
        if [[ $tag == skipped ]]; then
            xml+="><skipped message=\"$message\"/></testcase>"$'\n'
        else
            xml+="><$tag message=\"$message\">$escaped</$tag></testcase>"$'\n'
            printf '  %s: %s\n' "${case_names[i]}" "${case_texts[i]//$'\n'/$'\n'    }"
        fi
    done
    [[ $suite == doctor ]] || (( matched += ${#case_names[@]} ))
    (( total += passed + failed + ignored + errors, bad += failed + errors, skipped += ignored ))
    rows+=("$suite$TAB$passed$TAB$(( failed + errors ))$TAB$ignored$TAB$(seconds "$elapsed")$TAB$note")
    printf '%s: %d passed, %d failed, %d ignored, %s s%s\n' \
        "$suite" "$passed" $(( failed + errors )) "$ignored" "$(seconds "$elapsed")" "${note:+; $note}"
    (( failed + errors > 0 )) && printf '  log: %s\n' "$log"
    if [[ -n $junit ]]; then
        suites_xml+="  <testsuite name=\"$suite\" tests=\"${#case_names[@]}\" failures=\"$failed\" errors=\"$errors\" skipped=\"$ignored\" time=\"$(seconds "$elapsed")\" timestamp=\"$started\">"$'\n'"$xml"
        if (( failed + errors > 0 )); then
            escape "$(tail_of "$log")"
            suites_xml+="    <system-err>$escaped</system-err>"$'\n'
        fi
        suites_xml+=$'  </testsuite>\n'
    fi
    case_names=() case_ends=() case_texts=()
}

first_reason() { # the reason of the first ignored case, which mostly is that of all
    local i
    for i in "${!case_names[@]}"; do
        if [[ ${case_ends[i]} == ignored && -n ${case_texts[i]} ]]; then printf '%s' "${case_texts[i]}"; return; fi
    done
}

run_test() { # INDEX
    local suite=${packages[$1]}/${names[$1]} events log note
    events=$logs/${packages[$1]}.test.${names[$1]}.events log=$logs/${packages[$1]}.test.${names[$1]}.log
    rm -f -- "$events"
    execute "$log" ${sanitizer[@]+"${sanitizer[@]}"} "${files[$1]}" --logfile "$events" --color never \
        ${filter:+"$filter"} ${extra[@]+"${extra[@]}"}
    read_events "$events"
    note=$ended
    local reported=${#case_names[@]} failures=0 i
    for i in "${!case_ends[@]}"; do [[ ${case_ends[i]} == failed ]] && (( ++failures )); done
    if (( reported < announced )) || [[ ! -e $events ]]; then
        add_unreported "${files[$1]}" "${ended:-ended early}"
    elif [[ -n $ended && ! ( $ended == 'exit code 101' && $failures -gt 0 ) ]]; then
        # All tests reported, and yet: a crash on the way out, a timeout there, or the sanitizer's verdict.
        add_case executable error "$ended"
    fi
    [[ $note == 'exit code 101' ]] && note=''
    finish "$suite" "$log" "${note:-$(first_reason)}"
}

run_plain() { # SUITE LOG COMMAND...: one case, by the exit code
    local suite=$1 log=$2 note=''
    shift 2
    execute "$log" "$@"
    if [[ -n $ended ]]; then
        add_case "$suite" failed "$ended"$'\n'"$(tail -n 15 -- "$log" | tr -d '\000')"
    elif grep -q '^no GPU for ' -- "$log"; then
        note=$(grep -m 1 '^no GPU for ' -- "$log")
        add_case "$suite" ignored "$note"
    elif [[ -n $filter ]] && grep -q '^running 0 tests$' -- "$log"; then
        return
    else
        add_case "$suite" passed ''
    fi
    finish "$suite" "$log" "${note:-$ended}"
}

# ---- The run

started=$(TZ=UTC printf '%(%Y-%m-%dT%H:%M:%S)T' -1)
begin=$(now_ms)
echo "bundle of commit ${commit:-unknown}, on $(uname -n), $started UTC; logs in $logs"
xtask=''
for i in $(each tool); do xtask=${files[i]}; done

if wanted doctor && [[ -n $xtask ]]; then
    required=()
    (( require )) && required=(--require-gpu)
    "$xtask" doctor --json >"$logs/doctor.json" 2>/dev/null </dev/null
    run_plain doctor "$logs/doctor.log" "$xtask" doctor ${required[@]+"${required[@]}"}
    while IFS= read -r line; do printf '  %s\n' "$line"; done <"$logs/doctor.log"
fi
if wanted verify && [[ -n $xtask && -d $here/cases && -z $filter ]]; then
    run_plain verify "$logs/verify.log" ${sanitizer[@]+"${sanitizer[@]}"} "$xtask" verify "$here/cases"
    tail -n 1 -- "$logs/verify.log" | while IFS= read -r line; do printf '  %s\n' "$line"; done
fi
if wanted tests; then
    for i in $(each test); do run_test "$i"; done
fi
if wanted examples && [[ -z $filter ]]; then
    for i in $(each example); do
        run_plain "${packages[i]}/${names[i]}" "$logs/${packages[i]}.example.${names[i]}.log" \
            ${sanitizer[@]+"${sanitizer[@]}"} "${files[i]}"
    done
fi
if wanted benches && [[ -z $sanitize || ${#only[@]} -gt 0 ]]; then
    for i in $(each bench); do
        run_plain "${packages[i]}/${names[i]}" "$logs/${packages[i]}.bench.${names[i]}.log" \
            ${sanitizer[@]+"${sanitizer[@]}"} "${files[i]}" --bench ${filter:+"$filter"} ${extra[@]+"${extra[@]}"}
    done
fi
# It takes its time, and a GPU.
if (( ${#only[@]} > 0 )) && wanted soak && [[ -n $xtask && -z $filter ]]; then
    run_plain soak "$logs/soak.log" ${sanitizer[@]+"${sanitizer[@]}"} \
        "$xtask" soak --backend cuda ${extra[@]+"${extra[@]}"}
    tail -n 2 -- "$logs/soak.log" | while IFS= read -r line; do printf '  %s\n' "$line"; done
fi

width=10
for row in ${rows[@]+"${rows[@]}"}; do
    name=${row%%"$TAB"*}
    (( ${#name} > width )) && width=${#name}
done
printf "\n%-${width}s  %6s %6s %7s %9s  %s\n" executable passed failed ignored seconds note
for row in ${rows[@]+"${rows[@]}"}; do
    IFS=$TAB read -r name passed failed ignored time note <<<"$row"
    (( ${#note} > 100 )) && note=${note:0:97}...
    printf "%-${width}s  %6s %6s %7s %9s  %s\n" "$name" "$passed" "$failed" "$ignored" "$time" "$note"
done

if [[ -n $junit ]]; then
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n'
        printf '<testsuites name="kasmina-gpu" tests="%d" time="%s">\n' "$total" "$(seconds $(( $(now_ms) - begin )))"
        printf '%s</testsuites>\n' "$suites_xml"
    } >"$junit" || die "$junit cannot be written"
fi

if (( total == 0 )) || [[ -n $filter && $matched -eq 0 ]]; then
    echo "nothing ran: no executable of this bundle has what was asked for${filter:+ ($filter)}" >&2
    exit 2
fi
if (( bad > 0 )); then echo "FAILED: $bad of $total"; exit 1; fi
echo "passed: $(( total - skipped )), ignored: $skipped"
