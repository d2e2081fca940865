-- The generic cell rate algorithm, as a bucket that leaks: `debt` is the time until it is empty, negative if it is empty since
-- then, and `len` the time that a request takes to leak, in microseconds. As `policy/limit/gcra.rs`.
local rate = { kind = 'g', len = tonumber(ARGV[12]) }

-- No more than the whole burst counts, whatever was made while the store did not answer.
local function bound(state)
  state.debt = math.min(state.debt, tonumber(ARGV[11]) * rate.len)
end

-- Lets the bucket leak, and converts what was counted with another definition.
function rate.adapt(state, now)
  if state.k == 'w' then
    local sum = 0
    for _, n in pairs(state.b) do sum = sum + n end
    state.debt, state.b = sum * rate.len, nil
  elseif state.k == nil then
    state.debt = -now
  else
    state.debt = state.debt - (now - state.at)
    if state.debt > 0 and state.len ~= rate.len then state.debt = state.debt * rate.len / state.len end
  end
  state.k, state.len = rate.kind, rate.len
  bound(state)
end

-- Counts `n` requests that were made at `at`, as if all others that are counted had been made before. No other order gives more
-- debt.
function rate.count(state, now, at, n)
  state.debt = math.max(state.debt, at - now) + n * rate.len
  bound(state)
end

-- How many requests count now.
function rate.used(state)
  return math.max(0, math.ceil(state.debt / rate.len))
end

-- Microseconds until `n` requests less count, if no further one is made.
function rate.wait(state, now, n)
  return math.max(0, state.debt - (rate.used(state) - n) * rate.len)
end

