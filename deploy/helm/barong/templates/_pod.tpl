{{/* The files that hold secrets, and where: of the Pods that serve, or with "setup" those of the Job. */}}
{{- define "barong.secretVolume" -}}
{{- $v := .context.Values -}}
{{- $held := dict -}}
{{- range $name, $entry := $v.secrets.settings -}}
{{- if and $entry (or $.setup (ne $name "ADMIN_PASSWORD") (include "barong.embedded" $.context)) }}{{ $_ := set $held $name $entry }}{{ end -}}
{{- end -}}
{{- range $name, $entry := $v.secrets.files -}}
{{- if and $entry (not $.setup) }}{{ $_ := set $held $name $entry }}{{ end -}}
{{- end -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $entry := $held }}
      - secret:
          name: {{ get $entry "existingSecret" | default $v.secrets.existingSecret }}
          items:
            - key: {{ $entry.key | quote }}
              path: {{ $name }}
      {{- end }}
{{- end }}

{{- define "barong.secretEnv" -}}
{{- range $name, $entry := .context.Values.secrets.settings -}}
{{- if and $entry (or $.setup (ne $name "ADMIN_PASSWORD") (include "barong.embedded" $.context)) }}
- name: {{ $name }}_FILE
  value: /run/secrets/barong/{{ $name }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What the program is told wherever it runs. */}}
{{- define "barong.settingsEnv" -}}
{{- $settings := .context.Values.settings -}}
{{- if and (eq .context.Values.mode "central") (not (hasKey $settings "BARONG_TRUSTED_PROXIES")) }}
- name: BARONG_TRUSTED_PROXIES
  value: private
{{- end -}}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ ternary (printf "%v" $value) (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
- name: BARONG_JWT_ALGORITHM
  value: {{ .context.Values.signingKeys.algorithm }}
{{- if include "barong.filesName" .context }}
- name: BARONG_CONFIG_FOLDER
  value: /etc/barong/config
{{- end }}
{{- end }}

{{- define "barong.volumes" -}}
{{ include "barong.secretVolume" (dict "context" . "setup" false) }}
- name: keys
  secret:
    secretName: {{ .Values.signingKeys.existingSecret }}
    defaultMode: 0440
{{- with include "barong.filesName" . }}
- name: config
  configMap:
    name: {{ . }}
{{- end }}
- name: data
  {{- if .Values.data.persistent }}
  persistentVolumeClaim:
    claimName: {{ .Values.data.existingClaim | default (printf "%s-data" (include "barong.fullname" .)) }}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The container that serves. In a gateway's Pod it is an init container that goes on, so that it is there before the
gateway and until after it. */}}
{{- define "barong.container" -}}
{{- $beside := ne .Values.mode "central" -}}
{{- $host := ternary "127.0.0.1" "" $beside -}}
- name: barong
  image: {{ include "barong.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [ serve ]
  {{- if $beside }}
  restartPolicy: Always
  {{- end }}
  env:
    {{- include "barong.settingsEnv" (dict "context" .) | trim | nindent 4 }}
    {{- include "barong.secretEnv" (dict "context" . "setup" false) | trim | nindent 4 }}
    - name: BARONG_JWT_PRIVATE_KEY_PATH
      value: /etc/barong/keys
    - name: BARONG_HTTP_ADDR
      value: {{ printf "%s:%d" $host (int .Values.ports.http) | quote }}
    - name: BARONG_CHECK_ADDR
      value: {{ printf "%s:%d" $host (int .Values.ports.check) | quote }}
    - name: BARONG_GRPC_ADDR
      value: {{ ternary (printf "%s:%d" $host (int .Values.ports.grpc)) "" (gt (int .Values.ports.grpc) 0) | quote }}
    - name: BARONG_OPS_ADDR
      value: {{ printf ":%d" (int .Values.ports.ops) | quote }}
    - name: BARONG_DRAIN_TIME
      # A sidecar is stopped when its gateway has gone.
      value: {{ printf "%ds" (ternary 0 (int .Values.drainSeconds) $beside) }}
    {{- with .Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- if not $beside }}
    - name: http
      containerPort: {{ .Values.ports.http }}
    - name: check
      containerPort: {{ .Values.ports.check }}
    {{- if .Values.ports.grpc }}
    - name: grpc
      containerPort: {{ .Values.ports.grpc }}
    {{- end }}
    {{- end }}
    - name: ops
      containerPort: {{ .Values.ports.ops }}
  startupProbe:
    httpGet: { path: /livez, port: ops }
    periodSeconds: 1
    timeoutSeconds: 3
    failureThreshold: {{ .Values.probes.startupSeconds }}
  livenessProbe:
    httpGet: { path: /livez, port: ops }
    periodSeconds: 10
    timeoutSeconds: 3
    failureThreshold: 3
  readinessProbe:
    httpGet: { path: {{ .Values.probes.readiness }}, port: ops }
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    - { name: secrets, mountPath: /run/secrets/barong, readOnly: true }
    - { name: keys, mountPath: /etc/barong/keys, readOnly: true }
    {{- if include "barong.filesName" . }}
    - { name: config, mountPath: /etc/barong/config, readOnly: true }
    {{- end }}
    - { name: data, mountPath: /data }
    - { name: tmp, mountPath: /tmp }
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The steps before a server may start: the schema, then the first rows. Given the context, and the name of the ConfigMap. */}}
{{- define "barong.setupContainers" -}}
{{- $context := .context -}}
{{- $files := .files -}}
{{- range $step := ternary (list "migrate" "seed") (list "migrate") $context.Values.setup.seed }}
- name: {{ $step }}
  image: {{ include "barong.image" $context }}
  imagePullPolicy: {{ $context.Values.image.pullPolicy }}
  args: {{ ternary "[ migrate, up ]" "[ seed ]" (eq $step "migrate") }}
  env:
    {{- include "barong.settingsEnv" (dict "context" $context) | trim | nindent 4 }}
    {{- include "barong.secretEnv" (dict "context" $context "setup" true) | trim | nindent 4 }}
    {{- with $context.Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $context.Values.resources | nindent 4 }}
  securityContext:
    {{- toYaml $context.Values.securityContext | nindent 4 }}
  volumeMounts:
    - { name: setup-secrets, mountPath: /run/secrets/barong, readOnly: true }
    {{- if $files }}
    - { name: {{ $.volume }}, mountPath: /etc/barong/config, readOnly: true }
    {{- end }}
    - { name: data, mountPath: /data }
    - { name: tmp, mountPath: /tmp }
    {{- with $context.Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "barong.setupSecretVolume" -}}
{{ include "barong.secretVolume" (dict "context" . "setup" true) | replace "- name: secrets" "- name: setup-secrets" }}
{{- end }}

{{/* What a Pod has besides its containers and volumes. */}}
{{- define "barong.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# No variables for every Service of the namespace: some would look like settings.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
