# The budget and the table of run.sh, which sources this file. Expects: results, seconds.
#
# A line of the table is one write, so a cut at any moment leaves whole lines. Every command runs under a limit: its own,
# or what is left of the budget when that is less.
# shellcheck shell=bash disable=SC2154

grace=3  # seconds that a command has to end after it was asked to
failed=()
left_out=0
now() { echo "$((SECONDS - began))"; }
left() { echo "$((seconds - grace - (SECONDS - began)))"; }

note() {  # WHAT RESULT
  local line
  line=$(printf '%4d s  %-46s %s' "$(now)" "$1" "$2" | tr -d '\r' | tr '\n' ' ')
  printf '%s\n' "$line" >>"$results/table.txt"
  printf '%s\n' "$line"
}
check() {  # WHAT CODE [DETAIL]
  if [[ $2 -eq 0 ]]; then note "$1" "good${3:+  $3}"; else note "$1" "FAILED${3:+  $3}"; failed+=("$1"); fi
}
leave_out() {  # WHAT REASON
  note "$1" "left out: $2"
  left_out=$((left_out + 1))
}

# A limit that follows a budget of more than the usual 540 seconds.
limit_of() {  # SECONDS
  local limit=$1
  if ((seconds > 540)); then limit=$((limit * seconds / 540)); fi
  if ((limit > $(left))); then limit=$(left); fi
  echo "$limit"
}
# Starts a command in the background, in a group of processes of its own that ends with it. Its number is in `started`.
begin() {  # LIMIT COMMAND ...
  local limit
  limit=$(limit_of "$1")
  shift
  if ((limit < 1)); then
    (exit 124) &
  else
    timeout --kill-after="$grace" "$limit" "$@" &
  fi
  started=$!
}
# Runs a command and waits for it; 124 or 137 say that it was not done at its limit.
limited() {  # LIMIT COMMAND ...
  begin "$@"
  wait "$started"
}
# The line of a command that ended: cut by the budget it is left out, cut by its own limit it failed.
outcome() {  # WHAT CODE LIMIT [DETAIL]
  if [[ $2 -ne 124 && $2 -ne 137 ]]; then
    check "$1" "$2" "${4:-}"
  elif (($(left) < 1)); then
    leave_out "$1" "the $seconds seconds ended"
  else
    check "$1" 1 "not done after $3 s"
  fi
}
# Whether a part may begin; else its line says why not.
worth() {  # WHAT LEAST
  if (($(left) >= $2)); then return 0; fi
  leave_out "$1" "$(($(left) < 0 ? 0 : $(left))) s of $seconds are left, and it takes $2"
  return 1
}
# A file appears in the results whole or not at all.
keep() {  # NAME   from standard input
  local part="$results/.$1.part"
  cat >"$part" && mv "$part" "$results/$1"
}
last_line() { grep -v '^ *$' "$1" 2>/dev/null | tail -1; }
