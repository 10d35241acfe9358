{{- define "barong.name" -}}
{{- default "barong" .Values.nameOverride | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{/* Of every object; short enough for what is added behind it. */}}
{{- define "barong.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "barong.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "barong.selector" -}}
app.kubernetes.io/name: {{ include "barong.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ ternary "gateway" "server" (eq .Values.mode "sidecar") }}
{{- end }}

{{/* Of what is made, given a component; without one, those of the Pods. */}}
{{- define "barong.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/part-of: barong
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "barong.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "barong.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "barong.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* "true" where the rows are in SQLite, below /data. */}}
{{- define "barong.embedded" -}}
{{- $named := false -}}
{{- range $name, $_ := .Values.settings -}}
{{- if hasPrefix "DATABASE_" $name }}{{ $named = true }}{{ end -}}
{{- end -}}
{{- if not (or $named (get .Values.secrets.settings "BARONG_DATABASE_URL")) }}true{{ end -}}
{{- end }}

{{/* "true" where the Job or an init container sees to the schema; an embedded database does so by itself. */}}
{{- define "barong.setUp" -}}
{{- if and (ne .Values.setup.run "none") (not (include "barong.embedded" .)) }}true{{ end -}}
{{- end }}

{{- define "barong.filesName" -}}
{{- if .Values.existingFiles -}}
{{ .Values.existingFiles }}
{{- else if .Values.files -}}
{{ include "barong.fullname" . }}-files
{{- end -}}
{{- end }}

{{/* Where the API is published, without slashes around it. */}}
{{- define "barong.apiPrefix" -}}
{{ get .Values.settings "BARONG_API_PREFIX" | default "api/v2/barong" | trimAll "/" }}
{{- end }}

{{/* What the gateway of a Pod needs to be told about its neighbours is the reference configuration with other names. */}}
{{- define "barong.gatewayConfig" -}}
{{- $gateway := .Values.sidecar.gateway -}}
{{- if $gateway.config -}}
{{ $gateway.config }}
{{- else -}}
{{- $place := "address: %s, port_value: %s }" -}}
{{- $upstream := splitList ":" $gateway.upstream -}}
{{- $text := .Files.Get "files/envoy.yaml" -}}
{{- /* All are found before one is replaced: a port may be the one that another had. */ -}}
{{- $text = $text | replace "http://127.0.0.1:8081" (printf "http://127.0.0.1:%d" (int .Values.ports.check)) -}}
{{- range $port, $mark := dict "8000" "@gateway@" "8080" "@api@" "8081" "@checks@" "8090" "@upstream@" -}}
{{- $text = $text | replace (printf $place "127.0.0.1" $port) $mark -}}
{{- end -}}
{{- $text = $text | replace "@gateway@" (printf $place "0.0.0.0" (toString (int $gateway.port))) -}}
{{- $text = $text | replace "@api@" (printf $place "127.0.0.1" (toString (int .Values.ports.http))) -}}
{{- $text = $text | replace "@checks@" (printf $place "127.0.0.1" (toString (int .Values.ports.check))) -}}
{{- $text = $text | replace "@upstream@" (printf $place (first $upstream) (last $upstream)) -}}
{{- $text = $text | replace "/api/v2/barong/" (printf "/%s/" (include "barong.apiPrefix" .)) -}}
{{- $parts := splitList "- name: upstream\n    type: STATIC\n" $text -}}
{{- $text = join "- name: upstream\n    type: STRICT_DNS\n" $parts -}}
{{- if $gateway.trustedHops -}}
{{- $text = $text | replace "use_remote_address: true\n" (printf "use_remote_address: true\n          xff_num_trusted_hops: %d\n" (int $gateway.trustedHops)) -}}
{{- end -}}
{{- $example := "                  - exact: https://app.example.com # your front end\n" -}}
{{- $origins := "" -}}
{{- range $gateway.corsOrigins -}}
{{- $origins = printf "%s                  - exact: %s\n" $origins (quote .) -}}
{{- end -}}
{{- $matched := "allow_origin_string_match:\n" -}}
{{- $text = $text | replace (print $matched $example) (ternary (print $matched $origins) "allow_origin_string_match: []\n" (ne $origins "")) -}}
{{ $text }}
{{- end -}}
{{- end }}

{{/* What cannot work is refused before anything is made. */}}
{{- define "barong.validate" -}}
{{- $v := .Values -}}
{{- range $what, $of := dict "secrets.settings" $v.secrets.settings "secrets.files" $v.secrets.files -}}
{{- range $name, $entry := $of -}}
{{- if and $entry (not (or (get $entry "existingSecret") $v.secrets.existingSecret)) -}}
{{- fail (printf "secrets.existingSecret: name the Secret that holds %s.%s (%s)" $what $name $entry.key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $v.signingKeys.existingSecret -}}
{{- fail "signingKeys.existingSecret: name the Secret with the signing keys (README.md says how to make one)" -}}
{{- end -}}
{{- if and $v.files $v.existingFiles -}}
{{- fail "files and existingFiles: give one of them" -}}
{{- end -}}
{{- if include "barong.embedded" . -}}
{{- if ne $v.mode "central" -}}
{{- fail "secrets.settings.BARONG_DATABASE_URL: Pods of a gateway have no database of their own" -}}
{{- end -}}
{{- if or (gt (int $v.replicas) 1) $v.autoscaling.enabled -}}
{{- fail "secrets.settings.BARONG_DATABASE_URL: an embedded database has one Pod; set replicas to 1, or name a Postgres" -}}
{{- end -}}
{{- if not $v.data.persistent -}}
{{- fail "data.persistent: an embedded database is lost with its Pod otherwise" -}}
{{- end -}}
{{- end -}}
{{- if and (or (include "barong.setUp" .) (include "barong.embedded" .)) $v.setup.seed (not (or (get $v.secrets.settings "ADMIN_PASSWORD") (get $v.files "seeds.yml") $v.existingFiles)) -}}
{{- fail "secrets.settings.ADMIN_PASSWORD: nobody would know the password of the first superadmin; give it, or a seeds.yml" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (eq $v.mode "central") (not $v.networkPolicy.gateways) -}}
{{- fail "networkPolicy.gateways: an empty list would let everybody ask; name the gateways" -}}
{{- end -}}
{{- if and (eq $v.mode "inject") (eq $v.setup.run "init") -}}
{{- fail "setup.run=init: the Pods are not of this chart; use hook" -}}
{{- end -}}
{{- if and (ne $v.mode "central") (not (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version)) -}}
{{- fail (printf "mode=%s: sidecars that start first and stop last need Kubernetes 1.30, this is %s" $v.mode .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $ports := list -}}
{{- if eq $v.mode "sidecar" -}}
{{- $ports = list (int $v.sidecar.gateway.port) -}}
{{- end -}}
{{- range $name, $port := $v.ports -}}
{{- if and $port (has (int $port) $ports) -}}
{{- fail (printf "ports.%s: %d is taken by another" $name (int $port)) -}}
{{- end -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- end }}
