;; Wants a function of nobody's.
;; refused: imports `system`
;; component
(component (import "system" (func (param "command" string))))
