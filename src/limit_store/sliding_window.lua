-- A sliding window: `b` has the number of requests in each part of the window by its index, `len` is the length of a
-- part in microseconds. As `policy/limit/window.rs`.
local PARTS = 60
local rate = { kind = 'w', len = tonumber(ARGV[12]) }

-- Drops parts that are more than a window old, and converts what was counted with another definition. Each request counts
-- at the latest time at which it can have been made.
function rate.adapt(state, now)
  if state.k == 'g' then
    state.b = { [math.floor(now / rate.len)] = math.max(0, math.ceil(state.debt / state.len)) }
    state.debt = nil
  elseif state.k == nil then
    state.b = {}
  elseif state.len ~= rate.len then
    local parts = {}
    for index, n in pairs(state.b) do
      local part = math.floor(math.min((index + 1) * state.len - 1, now) / rate.len)
      parts[part] = (parts[part] or 0) + n
    end
    state.b = parts
  end
  state.k, state.len = rate.kind, rate.len
  for index in pairs(state.b) do
    if index + PARTS < math.floor(now / rate.len) then state.b[index] = nil end
  end
end

-- Counts `n` requests that were made at `at`.
function rate.count(state, now, at, n)
  local part = math.floor(at / rate.len)
  if part + PARTS >= math.floor(now / rate.len) then state.b[part] = (state.b[part] or 0) + n end
end

-- How many requests count now.
function rate.used(state)
  local sum = 0
  for _, n in pairs(state.b) do sum = sum + n end
  return sum
end

-- Microseconds until `n` requests less count, if no further one is made.
function rate.wait(state, now, n)
  local parts = {}
  for index in pairs(state.b) do parts[#parts + 1] = index end
  table.sort(parts)
  for _, index in ipairs(parts) do
    n = n - state.b[index]
    if n <= 0 then return (index + PARTS + 1) * rate.len - now end
  end
  return (PARTS + 1) * rate.len -- of what is leased, which may be used now
end

