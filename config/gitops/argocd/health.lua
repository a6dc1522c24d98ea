-- Health of every kind of the group kubexen.io for Argo CD. It reads the conditions as kstatus does, and shows what is
-- paused as Suspended.
local health = { status = "Progressing", message = "the operator has not looked at it yet" }

local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not looked at this generation yet"
  return health
end

local condition = {}
for _, c in ipairs(status.conditions) do
  condition[c.type] = c
end

local function is(type, value)
  return condition[type] ~= nil and condition[type].status == value
end

local function say(type)
  local c = condition[type]
  if c == nil then
    return ""
  end
  if c.message == nil or c.message == "" then
    return c.reason
  end
  return c.reason .. ": " .. c.message
end

if is("Stalled", "True") then
  return { status = "Degraded", message = say("Stalled") }
end
if is("Paused", "True") then
  return { status = "Suspended", message = say("Paused") }
end
if is("Reconciling", "True") then
  return { status = "Progressing", message = say("Reconciling") }
end
if is("Ready", "True") then
  return { status = "Healthy", message = say("Ready") }
end
return { status = "Progressing", message = say("Ready") }
