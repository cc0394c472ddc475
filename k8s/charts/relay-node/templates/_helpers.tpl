{{- define "relay-node.selector" -}}
app.kubernetes.io/name: relay-node
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "relay-node.labels" -}}
{{ include "relay-node.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The port on which the process listens for peers from outside, and the one for peers from inside the cluster. */}}
{{- define "relay-node.port" -}}
{{ ternary (int .Values.externalPort) 4001 (eq .Values.network "hostNetwork") }}
{{- end }}

{{- define "relay-node.config" -}}
{{- $listen := list -}}
{{- range $port := list (include "relay-node.port" .) "4002" -}}
{{- range $family := $.Values.families -}}
{{- $any := ternary "/ip4/0.0.0.0" "/ip6/::" (eq $family "ip4") -}}
{{- $listen = concat $listen (list (printf "%s/udp/%s/quic-v1" $any $port) (printf "%s/tcp/%s" $any $port)) -}}
{{- end -}}
{{- end -}}
{{- $host := .Values.externalHost -}}
{{- $kind := "dns" -}}
{{- if contains ":" $host }}{{ $kind = "ip6" }}{{ else if regexMatch "^[0-9]+(\\.[0-9]+){3}$" $host }}{{ $kind = "ip4" }}{{ end -}}
{{- $at := printf "/%s/%s" $kind $host -}}
{{- $external := list (printf "%s/udp/%d/quic-v1" $at (int .Values.externalPort)) (printf "%s/tcp/%d" $at (int .Values.externalPort)) -}}
{{- $own := dict
  "identity" (dict "key_file" "/var/lib/relay-node/identity.key")
  "listen" $listen
  "external" $external
  "drain" (dict "timeout" (ternary "0" (printf "%ds" (int .Values.drainSeconds)) (eq (int .Values.drainSeconds) 0)))
  "control" (dict "socket" "/run/relay-node/control.sock")
  "admin" (dict "listen" (printf "%s:%d" (ternary "127.0.0.1" "0.0.0.0" (eq .Values.network "hostNetwork")) (int .Values.admin.port)) "page" .Values.admin.page)
  "log" (dict "format" "json") -}}
{{- with .Values.relays }}{{ $_ := set $own "relays" . }}{{ end -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toYaml -}}
{{- end }}
